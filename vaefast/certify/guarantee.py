"""What a margin promises. Only members that are ``sound`` may be called certified."""

from __future__ import annotations

from enum import Enum

__all__ = ["Guarantee"]


class Guarantee(str, Enum):
    """The promise behind a margin, in words; a member equals its text."""

    FIRST_ORDER = "first order, not a certificate"
    FIRST_ORDER_STD_HELD = "first order, not a certificate; std held at its value at x"
    ESTIMATE = "estimate, not a certificate; computed in reduced precision"
    LOCAL = "sound with probability 1 - alpha per input; up to the rounding of a forward pass"
    LOCAL_RUN = (
        "sound with probability 1 - alpha for all inputs of the run at once; "
        "up to the rounding of a forward pass"
    )
    LIPSCHITZ = "sound, by computed Lipschitz constants; up to the rounding of a forward pass"

    def __str__(self) -> str:
        return self.value

    @property
    def sound(self) -> bool:
        """Whether the margin is a certificate."""
        return self in (Guarantee.LOCAL, Guarantee.LOCAL_RUN, Guarantee.LIPSCHITZ)

    @classmethod
    def of_draws(cls, over: int) -> Guarantee:
        """A certificate's whose α is that of ``over`` inputs together."""
        return cls.LOCAL_RUN if over > 1 else cls.LOCAL

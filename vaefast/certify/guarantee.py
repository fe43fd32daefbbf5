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
    LIPSCHITZ = "sound, by computed Lipschitz constants; up to the rounding of a forward pass"

    def __str__(self) -> str:
        return self.value

    @property
    def sound(self) -> bool:
        """Whether the margin is a certificate."""
        return self in (Guarantee.LOCAL, Guarantee.LIPSCHITZ)

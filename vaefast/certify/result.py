"""What a margin is told as."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from vaefast.certify.events import Event
from vaefast.certify.guarantee import Guarantee
from vaefast.models.lipschitz import Constants
from vaefast.runtime.reasons import Reasons

__all__ = ["NOT_FINITE", "MarginResult"]

NOT_FINITE = "x or r is not finite"


@dataclass(frozen=True)
class MarginResult:
    """A margin per input, and what it promises.

    Attributes:
        margin: [B] float64, ℓ2 radius in pixel scale; 0 where abstained, NaN where the input is
            not finite.
        p_lower: [B] float64, the probability bound that the margin rests on: of draws, or, of the
            method "lipschitz", what the constants say of x itself.
        abstain: [B] bool: ``p_lower`` ≤ ½, no radius that was tried is certified, or the input, σ
            or the Jacobian is not usable. Of first order a Jacobian of 0 is not: a relu that is
            dead at x or an encoder that rounds moves all the same a little further on.
        guarantee: a :class:`Guarantee`.
        method: the method, or the methods of which each row's largest was taken.
        reproducible: how far a row depends on the batch it stood in: ``"bits"``, ``"blocks"`` or
            ``"round-off"``, see :func:`vaefast.runtime.batching.reproducible`.
        reasons: why each row abstained, empty where it did not.
        event: the :class:`Event` that the margin is of. Margins of two events do not compare.
        bounds: of the method "lipschitz", [B] float64 by the name of each bound that the margin is
            the largest of.
        constants: of the method "lipschitz", what the margin rests on.
        samples: [B] int64, draws behind ``p_lower``; None where there are none.
        alpha: error probability: of each row's statement, or of all of a run's together, see
            ``over``; None where there are no draws.
        over: how many inputs share ``alpha``: each row's draws are evaluated at alpha/over. 1:
            each has its own.
        draws: a mark of the :class:`RobustProbability` that was brought, the same for results
            that share one; "" where the draws were the method's own.
        form: of the methods "local" and "best", which bound of the encoder the margin rests on, as
            of :func:`vaefast.certify.margin`'s argument; "" of others.
        why_form: why that is not the one that was asked for, "" where it is.
    """

    margin: Tensor
    p_lower: Tensor
    abstain: Tensor
    guarantee: Guarantee
    method: str
    reproducible: str = "round-off"
    reasons: Reasons = ()
    event: Event = Event.FIXED_CENTRE
    bounds: dict[str, Tensor] = field(default_factory=dict)
    constants: Constants | None = None
    samples: Tensor | None = None
    alpha: float | None = None
    over: int = 1
    draws: str = ""
    form: str = ""
    why_form: str = ""

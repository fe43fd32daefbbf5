"""First-order margins: what the draws tolerate, over how fast the encoder moves at x."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast.certify.guarantee import Guarantee
from vaefast.certify.request import Drawn
from vaefast.certify.result import NOT_FINITE, MarginResult
from vaefast.certify.sampling import smallest_std
from vaefast.geometry.norms import frobenius, rounding, spectral
from vaefast.models.prepare import Prepared
from vaefast.runtime import batching
from vaefast.runtime.reasons import Reasons, reasons

__all__ = ["first_order"]


def first_order(prepared: Prepared, drawn: Drawn, method: str, precision: str) -> MarginResult:
    """ "first_order" or "whitened", by the bound that the draws give."""
    p_lower = drawn.p_lower
    q = torch.special.ndtri(p_lower)
    std = smallest_std(prepared)
    sensitivity = _sensitivity(prepared, std, method, precision)
    bound = q / sensitivity
    usable = (bound > 0) & bound.isfinite() & (std > 0) & std.isfinite()
    abstain = ~((p_lower > 0.5) & usable)
    why = _reasons(abstain, p_lower, std, sensitivity)
    bound = bound.masked_fill(abstain, 0.0).masked_fill(p_lower.isnan(), torch.nan)
    generic = prepared.maps.generic("mean", "std")
    own = batching.reproducible(generic, ("net_forward", "net_jacobian_gram"), prepared.x)
    reduced = {precision, drawn.precision} != {"ieee"}
    return MarginResult(
        bound,
        p_lower,
        abstain,
        _guarantee(prepared, reduced),
        method,
        batching.weakest(own, drawn.reproducible),
        why,
    )


def _reasons(abstain: Tensor, p_lower: Tensor, std: Tensor, sensitivity: Tensor) -> Reasons:
    """Why each row abstains."""
    if not bool(abstain.any()):
        return ("",) * len(abstain)
    causes = {
        NOT_FINITE: p_lower.isnan(),
        "the encoder's std is not positive and finite": ~((std > 0) & std.isfinite()),
        "the Jacobian of the encoder's mean is not finite": ~sensitivity.isfinite(),
        "p_lower is at most 1/2": p_lower <= 0.5,
        "the Jacobian of the encoder's mean is 0, of which first order says nothing": abstain,
    }
    return reasons(len(abstain), causes)


def _guarantee(prepared: Prepared, reduced: bool) -> Guarantee:
    if reduced:
        return Guarantee.ESTIMATE
    return Guarantee.FIRST_ORDER if prepared.vae.fixed_std else Guarantee.FIRST_ORDER_STD_HELD


def _sensitivity(prepared: Prepared, std: Tensor, method: str, precision: str) -> Tensor:
    """Latent movement in units of σ per unit of ‖δ‖₂, at least with "ieee"; [B] float64."""
    if method == "whitened":
        bound = "upper" if precision == "ieee" else "estimate"
        return spectral(prepared, whiten=True, bound=bound)
    return frobenius(prepared) * (1.0 + rounding(prepared)) / std

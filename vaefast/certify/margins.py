"""First-order margins: how far an input may move before its reconstruction is likely to leave r."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import special
from torch import Tensor

from vaefast import checks
from vaefast.certify.guarantee import Guarantee
from vaefast.certify.probability import (
    Draws,
    RobustProbability,
    check_draws,
    check_radius,
    estimate,
)
from vaefast.certify.provenance import require_same
from vaefast.certify.sampling import smallest_std
from vaefast.geometry.norms import frobenius, rounding, spectral
from vaefast.models import VAE
from vaefast.models.context import Context
from vaefast.models.likelihoods import check_pixels
from vaefast.models.prepare import Prepared, prepare
from vaefast.runtime import batching
from vaefast.runtime.grad_mode import without_grad
from vaefast.runtime.reasons import Reasons, reasons

__all__ = ["METHODS", "MarginResult", "margin"]

METHODS = ("first_order", "whitened")


@dataclass(frozen=True)
class MarginResult:
    """A margin per input, and what it promises.

    Attributes:
        margin: [B] float64, ℓ2 radius in pixel scale; 0 where abstained, NaN where the input is
            not finite.
        p_lower: [B] float64, the probability bound that the margin rests on.
        abstain: [B] bool: ``p_lower`` ≤ ½, or the input, σ or the Jacobian is not usable. A
            Jacobian of 0 is not: a relu that is dead at x or an encoder that rounds moves all the
            same a little further on, of which first order says nothing.
        guarantee: a :class:`Guarantee`.
        method: the method that was asked for.
        reproducible: how far a row depends on the batch it stood in: ``"bits"``, ``"blocks"`` or
            ``"round-off"``, see :func:`vaefast.runtime.batching.reproducible`.
        reasons: why each row abstained, empty where it did not.
    """

    margin: Tensor
    p_lower: Tensor
    abstain: Tensor
    guarantee: Guarantee
    method: str
    reproducible: str = "round-off"
    reasons: Reasons = ()


@without_grad
def margin(
    vae: VAE,
    x: Tensor,
    r: float | Tensor,
    *,
    method: str = "first_order",
    samples: int | None = None,
    alpha: float | None = None,
    seed: int | None = None,
    index: Tensor | None = None,
    precision: str = "ieee",
    probability: RobustProbability | None = None,
    context: Context = None,
) -> MarginResult:
    """Lower bound, to first order, of the r-robustness margin of each input.

    The margin R is the largest radius such that for all ‖δ‖₂ ≤ R the reconstruction of x + δ,
    g(μ(x+δ) + σ⊙η), stays within r of g(μ(x)) with probability above ½. With
    q = Φ⁻¹(p_lower), J = ∂μ/∂x:

        first_order:  R ≥ min_i σ_i · q / ‖J‖_F      (the published bound)
        whitened:     R ≥ q / ‖diag(1/σ) J‖₂         (tightest of its kind, never smaller)

    Both drop terms of second order in δ and hold σ at its value at x; neither is a certificate.
    The norms are rounded up by the factor stated in :func:`vaefast.geometry.spectral_norm`, which
    saturated units of a float32 model that is no MLP can exceed; pass a float64 model there.

    Args:
        vae: the VAE, in evaluation mode.
        x: [B, *event] inputs, float32 or float64.
        r: radius in output space, float or [B], ℓ2 over all entries, pixel scale.
        method: ``"first_order"`` or ``"whitened"``.
        samples: draws behind ``p_lower``; default 1000.
        alpha: error probability of ``p_lower``, per input; default 0.001.
        seed: seed of the draws; default 0.
        index: [B] int64, the global number of each input; default ``arange(B)``.
        precision: of the draws as in :func:`robust_probability`, of J's norm as in
            :func:`vaefast.geometry.spectral_norm`. With another than ``"ieee"``, here or in
            ``probability``, the guarantee is ``Guarantee.ESTIMATE``, and the whitened norm is
            not rounded up.
        probability: the result of :func:`robust_probability` on the same model, x, context and
            ``r``, to share its draws among methods; ``samples``, ``alpha`` and ``seed`` are then
            its own, ``precision`` is for the norm alone, and ``index`` only places the rows of
            models that do not lower.
        context: conditions of each input, [B, ...] or a dict of such tensors.

    Returns:
        :class:`MarginResult`.

    Raises:
        TypeError: half precision.
        ValueError: unknown method, a ``probability`` of something else, or what
            :func:`robust_probability` refuses.

    Source: Camuto, Willetts, Roberts, Holmes, Rainforth, "Towards a theoretical understanding of
    the robustness of variational autoencoders", AISTATS 2021 (first_order);
    mathematics.md 2.2 (whitened).
    """
    checks.option(method, "method", METHODS)
    prepared = prepare(vae, x, index, context=context, precision=precision, half="refuse")
    check_pixels(prepared.x, vae.likelihood)
    if probability is None:
        probability = estimate(prepared, r, _draws(samples, alpha, seed), precision)
    else:
        rows = [len(x)]
        checks.shape(probability.p_lower, "probability.p_lower", rows, "the rows of x")
        radius = check_radius(r, prepared.x)
        require_same(probability, prepared, radius, samples=samples, alpha=alpha, seed=seed)
    p_lower = probability.p_lower
    q = torch.from_numpy(special.ndtri(p_lower.cpu().numpy())).to(x.device)
    std = smallest_std(prepared)
    sensitivity = _sensitivity(prepared, std, method, precision)
    bound = q / sensitivity
    usable = (bound > 0) & bound.isfinite() & (std > 0) & std.isfinite()
    abstain = ~((p_lower > 0.5) & usable)
    why = _reasons(abstain, p_lower, std, sensitivity)
    bound = bound.masked_fill(abstain, 0.0).masked_fill(p_lower.isnan(), torch.nan)
    reduced = {precision, probability.precision} != {"ieee"}
    generic = prepared.maps.generic("mean", "std")
    own = batching.reproducible(generic, ("net_forward", "net_jacobian_gram"), prepared.x)
    promise = batching.weakest(own, probability.reproducible)
    guarantee = _guarantee(vae, reduced)
    return MarginResult(bound, p_lower, abstain, guarantee, method, promise, why)


def _draws(samples: int | None, alpha: float | None, seed: int | None) -> Draws:
    return check_draws(
        1000 if samples is None else samples,
        1e-3 if alpha is None else alpha,
        0 if seed is None else seed,
    )


def _reasons(abstain: Tensor, p_lower: Tensor, std: Tensor, sensitivity: Tensor) -> Reasons:
    """Why each row abstains."""
    if not bool(abstain.any()):
        return ("",) * len(abstain)
    causes = {
        "x or r is not finite": p_lower.isnan(),
        "the encoder's std is not positive and finite": ~((std > 0) & std.isfinite()),
        "the Jacobian of the encoder's mean is not finite": ~sensitivity.isfinite(),
        "p_lower is at most 1/2": p_lower <= 0.5,
        "the Jacobian of the encoder's mean is 0, of which first order says nothing": abstain,
    }
    return reasons(len(abstain), causes)


def _guarantee(vae: VAE, reduced: bool) -> Guarantee:
    if reduced:
        return Guarantee.ESTIMATE
    return Guarantee.FIRST_ORDER if vae.fixed_std else Guarantee.FIRST_ORDER_STD_HELD


def _sensitivity(prepared: Prepared, std: Tensor, method: str, precision: str) -> Tensor:
    """Latent movement in units of σ per unit of ‖δ‖₂, at least with "ieee"; [B] float64."""
    if method == "whitened":
        bound = "upper" if precision == "ieee" else "estimate"
        return spectral(prepared, whiten=True, bound=bound)
    return frobenius(prepared) * (1.0 + rounding(prepared)) / std

"""Margins: how far an input may move before its reconstruction is likely to leave r."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from scipy import special
from torch import Tensor

from vaefast import checks
from vaefast.certify.events import Event
from vaefast.certify.guarantee import Guarantee
from vaefast.certify.lipschitz import certified_margins
from vaefast.certify.probability import (
    Draws,
    RobustProbability,
    check_draws,
    check_radius,
    estimate,
)
from vaefast.certify.provenance import require_draws, require_same
from vaefast.certify.sampling import smallest_std
from vaefast.geometry.norms import frobenius, rounding, spectral
from vaefast.models import VAE
from vaefast.models.context import Context
from vaefast.models.likelihoods import check_pixels
from vaefast.models.lipschitz import Constants
from vaefast.models.prepare import Prepared, prepare
from vaefast.runtime import batching
from vaefast.runtime.grad_mode import without_grad
from vaefast.runtime.reasons import Reasons, reasons

__all__ = ["METHODS", "MarginResult", "margin"]

METHODS = ("first_order", "whitened", "lipschitz")
NOT_FINITE = "x or r is not finite"
TOO_WIDE = "the constants and σ(x) leave the event a probability of at most 1/2 at x itself"


@dataclass(frozen=True)
class MarginResult:
    """A margin per input, and what it promises.

    Attributes:
        margin: [B] float64, ℓ2 radius in pixel scale; 0 where abstained, NaN where the input is
            not finite.
        p_lower: [B] float64, the probability bound that the margin rests on: of draws, or, of the
            method "lipschitz", what the constants say of x itself.
        abstain: [B] bool: ``p_lower`` ≤ ½, or the input, σ or the Jacobian is not usable. A
            Jacobian of 0 is not: a relu that is dead at x or an encoder that rounds moves all the
            same a little further on, of which first order says nothing.
        guarantee: a :class:`Guarantee`.
        method: the method that was asked for.
        reproducible: how far a row depends on the batch it stood in: ``"bits"``, ``"blocks"`` or
            ``"round-off"``, see :func:`vaefast.runtime.batching.reproducible`.
        reasons: why each row abstained, empty where it did not.
        event: the :class:`Event` that the margin is of. Margins of two events do not compare.
        bounds: of the method "lipschitz", [B] float64 by the name of each bound that the margin is
            the largest of.
        constants: of the method "lipschitz", what the margin rests on.
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
    variant: str | None = None,
) -> MarginResult:
    """Lower bound of the r-robustness margin of each input, to first order or certified.

    The margin R is the largest radius such that for all ‖δ‖₂ ≤ R the reconstruction of x + δ,
    g(μ(x+δ) + σ⊙η), stays within r of g(μ(x)) with probability above ½. With
    q = Φ⁻¹(p_lower), J = ∂μ/∂x:

        first_order:  R ≥ min_i σ_i · q / ‖J‖_F      (the published bound)
        whitened:     R ≥ q / ‖diag(1/σ) J‖₂         (tightest of its kind, never smaller)
        lipschitz:    the largest d with p(d) < ½,   p the smaller of two bounds of P(miss),
                      a²[b²d² + (‖σ‖ + cd)²]/r²  and  P(χ²_m > (r/a − bd)²/(max σ_i + cd)²)

    The first two drop terms of second order in δ and hold σ at its value at x; neither is a
    certificate. "lipschitz" is one: it draws nothing, and a, b, c are constants of g, μ and σ that
    are computed from the weights (:func:`vaefast.models.lipschitz_constants`); it says something
    where these are small, as in :class:`vaefast.models.LipschitzVAE`.

    The norms of the first two are rounded up by the factor stated in
    :func:`vaefast.geometry.spectral_norm`, which saturated units of a float32 model that is no MLP
    can exceed; pass a float64 model there.

    Args:
        vae: the VAE, in evaluation mode.
        x: [B, *event] inputs, float32 or float64.
        r: radius in output space, float or [B], ℓ2 over all entries, pixel scale.
        method: ``"first_order"``, ``"whitened"`` or ``"lipschitz"``. Tip: of a trained Lipschitz
            VAE certify its ``export()``, whose constants are the smallest.
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
        variant: of "lipschitz", None or ``"barrett2022"``: the published event, in which the
            reconstruction of x is drawn as well, independently, by the published Theorem 2 and
            tighter forms of it (T1 to T3). Its margins are none of the other methods' event.

    Returns:
        :class:`MarginResult`.

    Raises:
        TypeError: half precision.
        ValueError: unknown method, a ``probability`` of something else, what
            :func:`robust_probability` refuses; or, with "lipschitz", a map without a constant, or
            an argument about draws.

    Source: Camuto, Willetts, Roberts, Holmes, Rainforth, "Towards a theoretical understanding of
    the robustness of variational autoencoders", AISTATS 2021 (first_order);
    mathematics.md 2.2 (whitened), 4 (lipschitz); Barrett, Camuto, Willetts, Rainforth, "Certifiably
    robust variational autoencoders", AISTATS 2022 (the variant).
    """
    checks.option(method, "method", METHODS)
    if method == "lipschitz":
        given = {"samples": samples, "alpha": alpha, "seed": seed, "probability": probability}
        _refuse_draws(given | {"precision": None if precision == "ieee" else precision})
        return _lipschitz(prepare(vae, x, index, context=context, half="refuse"), r, variant)
    if variant is not None:
        raise ValueError(f'variant is of method "lipschitz", got method="{method}"')
    prepared = prepare(vae, x, index, context=context, precision=precision, half="refuse")
    check_pixels(prepared.x, vae.likelihood)
    if probability is None:
        probability = estimate(prepared, r, _draws(samples, alpha, seed), precision)
    else:
        require_draws(probability)
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


def _lipschitz(prepared: Prepared, r: float | Tensor, variant: str | None) -> MarginResult:
    check_pixels(prepared.x, prepared.vae.likelihood)
    found = certified_margins(prepared, r, variant)
    bound = torch.stack(list(found.bounds.values())).amax(0)
    abstain = ~(bound > 0)
    why = reasons(len(abstain), {NOT_FINITE: bound.isnan(), TOO_WIDE: abstain})
    return MarginResult(
        bound,
        found.p_lower,
        abstain,
        Guarantee.LIPSCHITZ,
        "lipschitz",
        batching.reproducible(True, (), prepared.x),
        why,
        found.event,
        found.bounds,
        found.constants,
    )


def _refuse_draws(given: dict[str, object]) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueError(f'method "lipschitz" draws nothing; leave out {name}')


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
        NOT_FINITE: p_lower.isnan(),
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

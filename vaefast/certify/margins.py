"""Margins: how far an input may move before its reconstruction is likely to leave r."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from vaefast import checks
from vaefast.certify.level import Over, inputs_of
from vaefast.certify.looks import Budget
from vaefast.certify.methods import METHODS
from vaefast.certify.probability import RobustProbability
from vaefast.certify.request import Request
from vaefast.certify.result import MarginResult
from vaefast.models import VAE
from vaefast.models.context import Context
from vaefast.models.likelihoods import check_pixels
from vaefast.models.prepare import prepare
from vaefast.runtime.grad_mode import without_grad

__all__ = ["margin"]


@without_grad
def margin(
    vae: VAE,
    x: Tensor,
    r: float | Tensor,
    *,
    method: str = "first_order",
    samples: int | str | None = None,
    alpha: float | None = None,
    seed: int | None = None,
    index: Tensor | None = None,
    precision: str = "ieee",
    probability: RobustProbability | None = None,
    context: Context = None,
    variant: str | None = None,
    budget: Budget | None = None,
    form: str | None = None,
    over: Over = "input",
) -> MarginResult:
    """Lower bound of the r-robustness margin of each input, to first order or certified.

    The margin R is the largest radius such that for all ‖δ‖₂ ≤ R the reconstruction of x + δ,
    g(μ(x+δ) + σ⊙η), stays within r of g(μ(x)) with probability above ½. With
    q = Φ⁻¹(p_lower), J = ∂μ/∂x:

        first_order:  R ≥ min_i σ_i · q / ‖J‖_F      (the published bound)
        whitened:     R ≥ q / ‖diag(1/σ) J‖₂         (tightest of its kind, never smaller)
        local:        the largest R found with Δ(R), E(R) tolerated by p_lower, where the ball of
                      radius R moves μ/σ by at most Δ(R) and log σ by at most E(R)
        anchors:      the same with the decoder sampled at many posteriors within reach
        lipschitz:    the largest d with p(d) < ½,   p the smaller of two bounds of P(miss),
                      a²[b²d² + (‖σ‖ + cd)²]/r²  and  P(χ²_m > (r/a − bd)²/(max σ_i + cd)²)

    The first two drop terms of second order in δ and hold σ at its value at x; neither is a
    certificate. "local" is one, for a VAE trained in any way whose encoder lowers: it holds with
    probability 1 − alpha over the draws, bounds the encoder over the whole ball by affine and
    multiplier forms, and knows of the decoder only the draws. "lipschitz" is another: it draws
    nothing, and a, b, c are constants of g, μ and σ that are computed from the weights
    (:func:`vaefast.models.lipschitz_constants`); it says something where these are small, as in
    :class:`vaefast.models.LipschitzVAE`.

    The norms of the first two are rounded up by the factor stated in
    :func:`vaefast.geometry.spectral_norm`, which saturated units of a float32 model that is no MLP
    can exceed; pass a float64 model there.

    Args:
        vae: the VAE, in evaluation mode.
        x: [B, *event] inputs, float32 or float64.
        r: radius in output space, float or [B], ℓ2 over all entries, pixel scale.
        method: ``"first_order"``, ``"whitened"``, ``"local"``, ``"anchors"``, ``"best"`` (the
            larger of these two, each at half of alpha) or ``"lipschitz"``. Tip: of a trained
            Lipschitz VAE certify its ``export()``, whose constants are the smallest.
        samples: draws behind ``p_lower``, or ``"auto"``: doubled, from 1,000, as long as they pay
            and the budget allows. Default ``"auto"`` for certificates, 1000 for first order.
        alpha: error probability of ``p_lower``, per input or as ``over`` says; default 0.001.
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
        budget: the most that ``samples="auto"`` spends, a :class:`vaefast.certify.Budget`.
        form: of "local" and "best", the bound of the encoder: ``"affine"``, ``"multiplier"``, the
            smaller of both (default), which costs three times as much as the first, or ``"joint"``,
            the tightest, at ten times the default's. Of convolutional encoders the default is
            "multiplier", or "affine" where a hidden layer beyond the first has more than 4096
            features; the result's ``form`` says which.
        over: whose alpha is: ``"input"``, each its own; ``"run"``, all rows' together: one
            statement about all of them, each evaluated at alpha/B (Bonferroni); or n, the number of
            inputs of the run that x is a batch of. The guarantee says which, and ``over`` of how
            many. A ``probability`` brings its own.

    Returns:
        :class:`MarginResult`.

    Raises:
        TypeError: half precision.
        ValueError: unknown method, a ``probability`` of something else, what
            :func:`robust_probability` refuses; or, with "lipschitz", a map without a constant, or
            an argument about draws.

    Source: Camuto, Willetts, Roberts, Holmes, Rainforth, "Towards a theoretical understanding of
    the robustness of variational autoencoders", AISTATS 2021 (first_order);
    mathematics.md 2.2 (whitened), 8 (local), 4 (lipschitz); Barrett, Camuto, Willetts, Rainforth,
    "Certifiably robust variational autoencoders", AISTATS 2022 (the variant).
    """
    checks.option(method, "method", tuple(METHODS))
    request = Request(
        method, r, samples, alpha, seed, precision, probability, variant, budget, form, over
    )
    request.check()
    prepared = prepare(vae, x, index, context=context, precision=precision, half="refuse")
    check_pixels(prepared.x, vae.likelihood)
    request = replace(request, inputs=inputs_of(over, len(prepared.x)))
    return METHODS[method](prepared, request)

"""How much likelihood an attack costs the clean input."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast import checks, philox
from vaefast.functional.rows import finite, nan_where_bad
from vaefast.models import VAE
from vaefast.models.calls import images
from vaefast.models.context import Context
from vaefast.models.likelihoods import check_pixels
from vaefast.models.prepare import Prepared, prepare
from vaefast.philox import Use
from vaefast.runtime.grad_mode import without_grad

__all__ = ["likelihood_degradation"]


@without_grad
def likelihood_degradation(
    vae: VAE,
    x: Tensor,
    x_adv: Tensor,
    *,
    seed: int = 0,
    index: Tensor | None = None,
    context: Context = None,
) -> Tensor:
    """Relative loss of log-likelihood of the clean input when its latent is the attacked one's.

        |log p(x|z*) − log p(x|z)| / |log p(x|z)|,  z = μ(x) + σ(x)η,  z* = μ(x_adv) + σ(x_adv)η

    One sample each, and the same noise η ~ N(0, I) for both, so that an attack that changes
    nothing costs exactly nothing. The ratio has no meaning where log p(x|z) is near 0, which a
    density can be: there it is very large, and infinite at 0.

    Args:
        vae: the VAE, in evaluation mode.
        x: [B, *event] clean inputs, float.
        x_adv: attacked inputs like ``x``.
        seed: seed of η.
        index: [B] int64, the global number of each input; default ``arange(B)``.
        context: conditions of each input, [B, ...] or a dict of such tensors.

    Returns:
        [B] float64, at least 0, possibly infinite; NaN where a row of ``x`` or ``x_adv`` is not
        finite.

    Raises:
        TypeError: ``vae`` is no VAE, ``seed`` is no whole number.
        ValueError: shapes differ.
        RuntimeError: the model is in training mode.

    Source: Camuto, Willetts, Roberts, Holmes, Rainforth, "Towards a theoretical understanding of
    the robustness of variational autoencoders", AISTATS 2021; the modulus of the denominator, for
    log-densities of either sign, is ours.
    """
    seed = philox.check_seed(seed)
    prepared = prepare(vae, x, index, context=context)
    check_pixels(prepared.x, vae.likelihood)
    checks.alike("x", x, x_adv=images(x_adv, "x_adv"))

    def run(part: Prepared) -> tuple[Tensor, ...]:
        attacked_x = x_adv[part.gather]
        clean = _log_likelihood(part, part.x, seed)
        attacked = _log_likelihood(part, attacked_x, seed)
        relative = (attacked - clean).abs() / clean.abs()
        relative = torch.where(attacked == clean, 0.0, relative)  # also where both are 0
        return nan_where_bad(finite(part.x, attacked_x), relative)

    maps, itemsize = prepared.maps, prepared.itemsize
    cost = maps.mean.bytes_per_row(itemsize) + maps.decoder.bytes_per_row(itemsize)
    (degradation,) = prepared.rows(run, cost, generic=maps.generic("encoder", "decoder"))
    return degradation


def _log_likelihood(part: Prepared, source: Tensor, seed: int) -> Tensor:
    """log p(x|z) for one z ~ q(z|source), [B] float64, nats."""
    mean, std = part.maps.posterior(source)
    noise = philox.normal(
        mean.shape[1], seed=seed, index=part.index, use=Use.POSTERIOR, dtype=mean.dtype
    )
    return part.maps.likelihood_at(mean + std * noise).log_prob(part.x)

"""Probabilities at several radii, from one set of draws."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaefast.certify.level import Over, inputs_of
from vaefast.certify.probability import (
    RobustProbability,
    check_alpha,
    check_draws,
    check_radius,
    count,
    estimate,
)
from vaefast.certify.provenance import fingerprint
from vaefast.models import VAE
from vaefast.models.context import Context
from vaefast.models.likelihoods import check_pixels
from vaefast.models.prepare import prepare
from vaefast.runtime.grad_mode import without_grad

__all__ = ["each_at", "robust_probabilities"]


@without_grad
def robust_probabilities(
    vae: VAE,
    x: Tensor,
    radii: Sequence[float],
    *,
    samples: int = 1000,
    alpha: float = 1e-3,
    seed: int = 0,
    index: Tensor | None = None,
    precision: str = "ieee",
    context: Context = None,
    over: Over = "input",
) -> tuple[RobustProbability, ...]:
    """:func:`robust_probability` at m radii, from one set of draws, all of them right together.

    Each bound is one at alpha/m; the hits are to the bit those of m calls with the same seed.

    Args:
        vae: the VAE, in evaluation mode.
        x: [B, *event] inputs, float32 or float64.
        radii: m of them, fixed before the draws; of those chosen afterwards, :func:`band`.
        samples: draws S per input.
        alpha: error probability of the statement about all m radii, in (0, 1): per input, or as
            ``over`` says.
        seed, index, precision, context, over: as in :func:`robust_probability`.

    Returns:
        m of :class:`RobustProbability`, whose ``alpha`` is alpha/m; each may be the ``probability``
        of a :func:`margin` at its radius.

    Raises:
        TypeError: half precision.
        ValueError: no radius, or what :func:`robust_probability` refuses.

    Source: mathematics.md 8.1. Tip: a decoder that is evaluated as a module decodes each draw once
    for all radii; a fused one still passes once for each, as it keeps no distances.
    """
    if not len(radii):
        raise ValueError("radii must hold at least one radius")
    level = check_alpha(alpha) / len(radii)
    return each_at(
        vae,
        x,
        radii,
        alpha=level,
        samples=samples,
        seed=seed,
        index=index,
        precision=precision,
        context=context,
        over=over,
    )


@without_grad
def each_at(
    vae: VAE,
    x: Tensor,
    radii: Sequence[float],
    *,
    alpha: float,
    samples: int = 1000,
    seed: int = 0,
    index: Tensor | None = None,
    precision: str = "ieee",
    context: Context = None,
    over: Over = "input",
) -> tuple[RobustProbability, ...]:
    """The same with ``alpha`` of each radius by itself."""
    draws = check_draws(samples, alpha, seed)
    prepared = prepare(vae, x, index, context=context, precision=precision, half="refuse")
    check_pixels(prepared.x, vae.likelihood)
    limits = torch.stack([check_radius(r, prepared.x) for r in radii], 1)
    hits = count(prepared, limits, seed, range(samples), precision)
    how = draws, precision, fingerprint(prepared), inputs_of(over, len(prepared.x))
    parts = zip(limits.unbind(1), hits.unbind(1), strict=True)
    return tuple(estimate(prepared, r, *how, k.contiguous()) for r, k in parts)

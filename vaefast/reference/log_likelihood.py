"""``log_likelihood`` in plain PyTorch: log p(x | out) per row and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast.functional.likelihoods import PIXEL_LIKELIHOODS
from vaefast.functional.rows import chains, chunked, finite, nan_where_bad, of_chains

__all__ = ["log_density", "log_likelihood", "score"]

TEMPORARIES = 8  # of the size of a row of ``out``, alive at once


def log_likelihood(
    out: Tensor, x: Tensor, *, likelihood: str, obs_std: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log p(x | out) [N] float64 and its gradient in ``out`` [N, D]; row n belongs to x[n // C].

    The pixels' terms are computed in the input dtype and summed in float64.
    """
    count = chains(out, x)

    def run(rows: slice) -> tuple[Tensor, ...]:
        a, pixels = out[of_chains(rows, count)], x[rows]
        logp = log_density(a, pixels, likelihood=likelihood, obs_std=obs_std)
        gradient = score(a, pixels, likelihood=likelihood, obs_std=obs_std)
        good = finite(a) & finite(pixels).repeat_interleave(count)
        return nan_where_bad(good, logp, gradient)

    bytes_per_row = TEMPORARIES * count * out.shape[-1] * out.element_size()
    logp, gradient = chunked(run, len(x), bytes_per_row)
    return logp, gradient


def log_density(out: Tensor, x: Tensor, *, likelihood: str, obs_std: float = 1.0) -> Tensor:
    """log p(x | out), all constants included: [N] float64, nats."""
    pixel = PIXEL_LIKELIHOODS[likelihood]
    terms = pixel.log_density(_by_input(out, x), x.unsqueeze(1), obs_std)  # [B, C, D]
    logp = terms.sum(dim=-1, dtype=torch.float64).flatten()
    return logp + x.shape[-1] * pixel.constant(obs_std)


def score(out: Tensor, x: Tensor, *, likelihood: str, obs_std: float = 1.0) -> Tensor:
    """d log p(x | out) / d out, [N, D]."""
    pixel = PIXEL_LIKELIHOODS[likelihood]
    return pixel.derivative(_by_input(out, x), x.unsqueeze(1), obs_std).flatten(0, 1)


def _by_input(out: Tensor, x: Tensor) -> Tensor:
    return out.unflatten(0, (len(x), chains(out, x)))  # [B, C, D]: x is broadcast, never expanded

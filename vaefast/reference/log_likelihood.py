"""``log_likelihood`` in plain PyTorch: log p(x | out) per row and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaefast.functional.likelihoods import PIXEL_LIKELIHOODS, beside_chains, parameter_rows, valid
from vaefast.functional.rows import chains, chunked, finite, nan_where_bad, of_chains

if TYPE_CHECKING:
    from vaefast.ops.log_likelihood import Call

__all__ = ["log_density", "log_likelihood", "score"]

TEMPORARIES = 8  # of the size of a row of ``out``, alive at once


def log_likelihood(call: Call) -> tuple[Tensor, Tensor]:
    """log p(x | out) [N] float64 and its gradient in ``out`` [N, D]; row n belongs to x[n // C].

    The pixels' terms are computed in the input dtype and summed in float64.
    """
    out, x, likelihood = call.out, call.x, call.likelihood
    count = chains(out, x)

    def run(rows: slice) -> tuple[Tensor, ...]:
        a, pixels = out[of_chains(rows, count)], x[rows]
        parameters = parameter_rows(call.likelihood_params, rows)
        logp = log_density(a, pixels, likelihood, parameters)
        gradient = score(a, pixels, likelihood, parameters)
        of_input = finite(pixels) & valid(parameters, len(pixels), x)
        return nan_where_bad(finite(a) & of_input.repeat_interleave(count), logp, gradient)

    bytes_per_row = TEMPORARIES * count * out.shape[-1] * out.element_size()
    logp, gradient = chunked(run, len(x), bytes_per_row)
    return logp, gradient


def log_density(out: Tensor, x: Tensor, likelihood: str, parameters: Sequence[Tensor]) -> Tensor:
    """log p(x | out), all constants included: [N] float64, nats."""
    pixel = PIXEL_LIKELIHOODS[likelihood]
    terms = pixel.log_density(_by_input(out, x), x.unsqueeze(1), *beside_chains(parameters))
    given = pixel.constant(x.shape[-1], *parameters)
    constant = torch.as_tensor(given, device=out.device, dtype=torch.float64).unsqueeze(-1)
    return (terms.sum(dim=-1, dtype=torch.float64) + constant).flatten()  # of [B, C]


def score(out: Tensor, x: Tensor, likelihood: str, parameters: Sequence[Tensor]) -> Tensor:
    """d log p(x | out) / d out, [N, D]."""
    pixel = PIXEL_LIKELIHOODS[likelihood]
    slope = pixel.derivative(_by_input(out, x), x.unsqueeze(1), *beside_chains(parameters))
    return slope.flatten(0, 1)


def _by_input(out: Tensor, x: Tensor) -> Tensor:
    return out.unflatten(0, (len(x), chains(out, x)))  # [B, C, D]: x is broadcast, never expanded

"""What a run keeps of each row's drawn distances, so that r can be chosen afterwards."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor

from vaefast import certify
from vaefast.jobs.plan import RunPlan
from vaefast.models import VAE

__all__ = ["COLUMN", "draws_of", "ranks_of", "spread"]

COLUMN = "spread"
HELD = 64  # order statistics of a row, between S/2 and S: a bound of F is at most 1/128 lower
ROWS = 1024  # whose distances are in memory at once


def draws_of(plan: RunPlan) -> int:
    """S of a run of ``robust_probability``."""
    usual = inspect.signature(certify.robust_probability).parameters["samples"].default
    return int(plan.options.get("samples", usual))


def ranks_of(samples: int) -> Tensor:
    """Which order statistics of S draws are kept, ascending; [G] int64.

    Those of the upper half: no certificate rests on a probability of at most ½.
    """
    parts = torch.arange(HELD + 1, 2 * HELD + 1, device="cpu")
    return (samples * parts).add(2 * HELD - 1).div(2 * HELD, rounding_mode="floor").unique()


def spread(vae: VAE, x: Tensor, index: Tensor, plan: RunPlan) -> Tensor:
    """The kept order statistics of ‖Δ‖ at inputs [n, *event], [n, G] float64.

    Of the draws whose hits stand beside them; infinite where that many were not finite.
    """
    samples = draws_of(plan)
    ranks = ranks_of(samples).tolist()
    found = [x.new_zeros(0, len(ranks), dtype=torch.float64)]
    for start in range(0, len(x), ROWS):
        part, own = x[start : start + ROWS], index[start : start + ROWS]
        draws = certify.drawn_distances(vae, part, samples=samples, seed=plan.seed, index=own)
        found.append(certify.order_statistics(draws, ranks, 0.5).r)
    return torch.cat(found)

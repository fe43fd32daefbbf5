"""Masses that are learnt in the warm-up, in windows of transitions, each row by itself."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["inverse_mass_of", "window", "windows"]

FIRST, BASE, LAST = 75, 25, 50  # transitions: before the windows, of the first one, after them
SHORTEST = 20  # a warm-up below that learns no mass
SHARES = 0.15, 0.1  # of a warm-up too short for FIRST, BASE and LAST: before and after one window
OF_ONE = 0.3, 0.65  # of a warm-up: where a single window begins and ends
PRIOR_DRAWS, PRIOR_VARIANCE = 5.0, 1e-3


def windows(warmup: int) -> list[tuple[int, int]]:
    """(first transition, end) of each window, twice as long as the one before, the last extended.

    Source: the Stan reference manual, "Automatic parameter tuning".
    """
    if warmup < SHORTEST:
        return []
    if warmup < FIRST + BASE + LAST:
        first, last = (int(share * warmup) for share in SHARES)
        return [(first, warmup - last)]
    found, begin, size, end = [], FIRST, BASE, warmup - LAST
    while begin < end:
        after = begin + size
        if after + 2 * size > end:
            after = end
        found.append((begin, after))
        begin, size = after, 2 * size
    return found


def window(warmup: int) -> list[tuple[int, int]]:
    """The one window whose draws only tell where the posterior's middle is."""
    begin, end = (int(share * warmup) for share in OF_ONE)
    return [(begin, end)] if begin < end else []


def inverse_mass_of(draws: Tensor) -> Tensor:
    """The diagonal of M⁻¹ [B, d] from draws [B, n, d] of a window, those of a row's chains.

    Their variance in float64, shrunk to 0.001 with the weight of 5 draws as Stan does.
    """
    n = draws.shape[1]
    variance = draws.double().var(1, correction=min(1, n - 1))
    shrunk = (n * variance + PRIOR_DRAWS * PRIOR_VARIANCE) / (n + PRIOR_DRAWS)
    return torch.nan_to_num(shrunk, nan=1.0, posinf=1.0).to(draws.dtype)  # of rows that failed

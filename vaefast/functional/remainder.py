"""What errors with signs add to a bound, at most."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["COLUMNS", "remainder"]

COLUMNS = 1024  # of the matrix at once


def remainder(errors: list[Tensor], groups: int) -> Tensor:
    """√(Σ |MᵀM|) of each group of M's rows, [b, groups], which is at most ‖Σ_j |M_ij|‖₂.

    ``errors``: M [b, m, units] in parts; columns without an error are left out.
    """
    columns = [_without_zeros(M).unflatten(1, (groups, -1)) for M in errors]
    parts = [part for M in columns for part in M.split(COLUMNS, dim=-1)]
    total = parts[0].new_zeros(parts[0].shape[:2])
    for i, M in enumerate(parts):
        for N in parts[i:]:
            size = torch.linalg.vector_norm(M.mT @ N, 1, dim=(-2, -1))
            total = total + (size if N is M else 2.0 * size)
    return total.sqrt()


def _without_zeros(M: Tensor) -> Tensor:
    """The columns of M [b, m, units] that are not 0, as many as the row with most has."""
    sizes = M.abs().sum(1)
    most = int((sizes > 0).sum(1).max()) if len(M) else 0
    if 8 * most > 7 * M.shape[2]:
        return M
    chosen = sizes.topk(max(most, 1), dim=1).indices
    return M.gather(2, chosen.unsqueeze(1).expand(-1, M.shape[1], -1))

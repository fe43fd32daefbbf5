"""Largest eigenvalues of large matrices, proven by a Cholesky decomposition that exists."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["banded_gram", "largest"]

STEPS = 24  # of Lanczos's method, which only proposes
PROPOSALS = (1.001, 1.01, 1.1)  # each over the estimate
TINY = 1e-150  # in place of a size of 0
TILE = 96  # rows of a tile, at least
TILES = 8  # along each side


def largest(Q: Tensor, root: Tensor) -> Tensor:
    """At least λ_max(D Q D), D = diag(root [b, n]) and Q ≽ 0 [b, n, n] or [n, n]: [b].

    Where the decomposition of λI − DQD ends, −c·tr(λI − DQD) is below all its eigenvalues, c of the
    size of n ULP (Rump 2006): λ(1 + 64 n² ULP) bounds λ_max. Power iterations propose λ, the trace
    is what remains where no proposal holds.
    """
    A = (Q * root.unsqueeze(-1)).mul_(root.unsqueeze(-2))
    n, estimate, found = A.shape[-1], _estimate(A), A.diagonal(dim1=-2, dim2=-1).sum(1)
    missing = estimate.isfinite() & (found > 0)
    for step in PROPOSALS:
        rows = missing.nonzero()[:, 0]
        if not len(rows):
            break
        proposed = step * estimate[rows]
        shifted = A[rows].neg_()
        shifted.diagonal(dim1=-2, dim2=-1).add_(proposed[:, None])
        held = torch.linalg.cholesky_ex(shifted).info == 0
        found[rows] = torch.where(held, torch.minimum(proposed, found[rows]), found[rows])
        missing[rows] = ~held
    return (1.0 + 64.0 * n * n * 2.0**-52) * found


def _estimate(A: Tensor) -> Tensor:
    """About λ_max, from below: the largest eigenvalue on a Krylov space, [b]."""
    v = A.diagonal(dim1=-2, dim2=-1).sqrt() + TINY
    v, basis, images = v / v.norm(dim=1, keepdim=True), [], []
    for _ in range(min(STEPS, A.shape[-1])):
        basis.append(v)
        images.append((A @ v.unsqueeze(-1)).squeeze(-1))
        v, V = images[-1], torch.stack(basis, 2)
        for _ in range(2):
            v = v - (V @ (V.mT @ v.unsqueeze(-1))).squeeze(-1)
        v = v / (v.norm(dim=1, keepdim=True) + TINY)
    small = torch.stack(basis, 2).mT @ torch.stack(images, 2)
    good = small.isfinite().flatten(1).all(1)
    small = torch.where(good[:, None, None], 0.5 * (small + small.mT), 0.0)
    return torch.where(good, torch.linalg.eigvalsh(small)[:, -1], torch.nan)


def banded_gram(M: Tensor) -> Tensor:
    """M Mᵀ of M [b, n, m], of which rows that lie far apart have no column in common.

    Tiles of rows are multiplied over the columns at which both are not 0; a plain product where
    that is all of them.
    """
    n = M.shape[1]
    size = max(TILE, -(-n // TILES))
    if n <= size:
        return M @ M.mT
    tiles, ends = M.split(size, dim=1), []
    for tile in tiles:
        columns = (tile != 0).any(1).any(0).nonzero()[:, 0]
        ends.append((int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0))
    result = M.new_zeros(len(M), n, n)
    for i, one in enumerate(tiles):
        for j in range(i, len(tiles)):
            start, stop = max(ends[i][0], ends[j][0]), min(ends[i][1], ends[j][1])
            if start < stop:
                block = one[..., start:stop] @ tiles[j][..., start:stop].mT
                result[:, i * size : i * size + size, j * size : j * size + size] = block
                result[:, j * size : j * size + size, i * size : i * size + size] = block.mT
    return result

"""The largest eigenvalues of a metric from products alone: block Lanczos, every row by itself."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional.rows import finite
from vaefast.geometry.metric import decompose
from vaefast.geometry.operators import Operator

__all__ = ["BASIS_BYTES", "Ritz", "ritz_pairs"]

BASIS_BYTES = 48  # per entry of the basis: it, its images, and a block's temporaries in float64
NEGLIGIBLE = 1e-10  # of a vector's length: what is left of it has no direction of its own


class Ritz(NamedTuple):
    """Approximate eigen-pairs of JJᵀ (or JᵀJ) at each of b points, float64.

    Args:
        values: [b, k] descending; the i-th is at most the i-th eigenvalue.
        vectors: [b, k, size], orthonormal, 0 where the space holds no further direction.
        residuals: [b, k], ‖Gw − θw‖: an eigenvalue lies so near to each value.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor


def ritz_pairs(
    op: Operator, start: Tensor, count: int, *, iterations: int, tolerance: float
) -> Ritz:
    """The ``count`` largest, by Rayleigh and Ritz on the block Krylov space of ``start``.

    All vectors are kept and orthogonalised twice. A row ends at its own first iteration at which
    all residuals are at most ``tolerance``·θ_1, so that it does not depend on the other rows.

    Args:
        op: the operator; products are taken in start's dtype.
        start: [b, p, size], p ≥ count.
        count: k.
        iterations: at most, each p products with J and with Jᵀ.
        tolerance: see above.

    Source: Golub, Underwood, "The block Lanczos method for computing eigenvalues", 1977; Parlett,
    "The symmetric eigenvalue problem", 1980, for Ritz values from below.
    """
    b, p, size = start.shape
    steps = min(iterations, -(-size // p))
    basis = start.new_zeros(b, steps * p, size, dtype=torch.float64)
    images = torch.zeros_like(basis)
    block, found, done = start.double(), None, torch.zeros_like(start[:, 0, 0], dtype=torch.bool)
    for step in range(steps):
        seen, new = slice(0, (step + 1) * p), slice(step * p, (step + 1) * p)
        basis[:, new] = _orthonormal(block, basis[:, : step * p])
        block = op.back(op.half(basis[:, new].to(start.dtype))).double()
        images[:, new] = block
        pairs = _pairs(basis[:, seen], images[:, seen], count)
        found = pairs if found is None else _unless(done, found, pairs)
        small = found.residuals <= tolerance * found.values[:, :1]
        done = small.all(1) | ~finite(found.values)
        if bool(done.all()):
            break
    return found or _pairs(basis, images, count)


def _pairs(basis: Tensor, images: Tensor, count: int) -> Ritz:
    """Of the projected matrix; ``images`` are the products with ``basis`` [b, j, size]."""
    projected = basis @ images.mT
    values, weights = decompose(0.5 * (projected + projected.mT))
    values, weights = values[:, :count], weights.mT[:, :count]
    vectors = weights @ basis
    off = weights @ images - values.unsqueeze(-1) * vectors
    return Ritz(values, vectors, torch.linalg.vector_norm(off, dim=2))


def _orthonormal(block: Tensor, basis: Tensor) -> Tensor:
    """The block's vectors made orthonormal to each other and to the basis; 0 for what depends."""
    before = torch.linalg.vector_norm(block, dim=2)
    for _ in range(2):
        for _ in range(2):
            block = block - (block @ basis.mT) @ basis
        columns, corner = torch.linalg.qr(block.mT)
        left = corner.diagonal(dim1=1, dim2=2).abs()
        kept = left > NEGLIGIBLE * before  # of the second time: all that the first left
        block, before = columns.mT * kept.unsqueeze(-1), torch.ones_like(before)
    return block


def _unless(done: Tensor, old: Ritz, new: Ritz) -> Ritz:
    """The old pairs of the rows that are done [b], the new ones of the others."""
    kept = [done.reshape(-1, *[1] * (t.ndim - 1)) for t in old]
    return Ritz(*[torch.where(k, a, b) for k, a, b in zip(kept, old, new)])

"""The pullback metric JᵀJ of a map through a small factor A with AᵀA = JᵀJ.

A has as many rows as there are latents (twice as many with the std part), so A Aᵀ holds all
non-zero eigenvalues of the metric, which is never formed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import ops
from vaefast.functional.rows import finite, nan_where_bad
from vaefast.models.maps import Maps
from vaefast.runtime import backends

__all__ = ["Factor", "decompose", "factor", "largest_eigenvalue", "largest_of_modules", "units"]

SQUARED = 128  # the largest matrix whose eigenvalue is bounded by squaring on a GPU


class Factor(NamedTuple):
    """A at each of b points, as what is needed of it.

    Args:
        gram: A Aᵀ [b, m, m] float64.
        pull: w [b, k, m] ↦ Aᵀw [b, k, n], both float64.
    """

    gram: Tensor
    pull: Callable[[Tensor], Tensor]


def factor(
    maps: Maps, x: Tensor, of: str, *, inv_std: Tensor | None = None, std: bool = False
) -> Factor:
    """The factor of the metric of one map at x [b, D].

    - encoder: A = J_μ, or diag(inv_std) J_μ; with ``std`` A = [J_μ; J_σ].
    - decoder, at z = μ(x): A = (J_gᵀJ_g)^½.
    - reconstruction: A = S J_μ with SᵀS = G = J_gᵀJ_g; with ``std`` A = [S J_μ; diag(G)^½ J_σ].

    Source: Khan, Storkey 2023, §3; mathematics.md 3.1, 3.2.
    """
    if of == "encoder":
        return _with_std(maps, x, None, None) if std else _encoder(maps, x, inv_std)
    metric = _decoder_gram(maps, maps.mean.value(x))  # [b, d, d]
    if of == "decoder":
        return Factor(metric, lambda w: w)
    values, vectors = decompose(metric)
    root = values.sqrt().unsqueeze(-1) * vectors.mT  # S, SᵀS = G
    if std:
        return _with_std(maps, x, root, metric.diagonal(dim1=1, dim2=2).sqrt())
    gram = root @ maps.mean.gram(x) @ root.mT
    return Factor(gram, lambda w: _pulled(maps, x, w @ root))


def decompose(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [b, m] (descending, not negative) and vectors [b, m, m] of symmetric matrices.

    NaN for a matrix that is not finite, which LAPACK would refuse together with all others.
    """
    good = finite(gram)
    values, vectors = torch.linalg.eigh(torch.where(good[:, None, None], gram, 0.0))
    values, vectors = nan_where_bad(good, values.clamp(min=0.0), vectors)
    return values.flip(1), vectors.flip(2)


def largest_eigenvalue(gram: Tensor) -> Tensor:
    """λ_max [b] of positive semidefinite matrices [b, m, m] float64, or a little more on CUDA.

    There repeated squaring gives an upper bound up to 3e-6 too large, where a batched eigensolver
    would take far longer. NaN for a matrix that is not finite.
    """
    squared = gram.is_cuda and gram.shape[-1] <= SQUARED
    if squared and backends.supports("eigenvalue_bound", "triton", device="cuda"):
        return ops.eigenvalue_bound(gram)
    return decompose(gram)[0][:, 0]


def largest_of_modules(gram: Tensor) -> Tensor:
    """As :func:`largest_eigenvalue`; on the CPU without vectors, in a third of the time.

    Other bits: lowered networks keep those that they have had.
    """
    if gram.is_cuda:
        return largest_eigenvalue(gram)
    good = finite(gram)
    values = torch.linalg.eigvalsh(torch.where(good[:, None, None], gram, 0.0))[:, -1]
    return nan_where_bad(good, values.clamp(min=0.0))[0]


def units(x: Tensor, size: int) -> Tensor:
    """The unit vectors of R^size as probes of every row, [b, size, size]."""
    return torch.eye(size, dtype=x.dtype, device=x.device).expand(len(x), -1, -1)


def _encoder(maps: Maps, x: Tensor, inv_std: Tensor | None) -> Factor:
    scale = 1.0 if inv_std is None else inv_std.double().unsqueeze(1)
    return Factor(maps.mean.gram(x, inv_std), lambda w: _pulled(maps, x, w * scale))


def _pulled(maps: Maps, x: Tensor, u: Tensor) -> Tensor:
    """J_μᵀu, [b, k, d] -> [b, k, D] float64."""
    return maps.mean.vjp(x, u.to(x.dtype)).double()


def _decoder_gram(maps: Maps, z: Tensor) -> Tensor:
    """J_gᵀJ_g [b, d, d] float64, by d forward products."""
    columns = maps.pixels.jvp(z, units(z, z.shape[1])).double()  # [b, d, D]
    return columns @ columns.mT


def _with_std(maps: Maps, x: Tensor, left: Tensor | None, std_left: Tensor | None) -> Factor:
    """A = [L J_μ; diag(l) J_σ] with L = ``left``, l = ``std_left``, 1 where None; rows are kept."""
    unit = units(x, maps.mean.outputs)
    rows = maps.mean.vjp(x, unit).double()  # J_μ [b, d, D]
    rows = rows if left is None else left @ rows
    if maps.std is not None:
        std_rows = maps.std.vjp(x, unit).double()  # J_σ [b, d, D]
        scaled = std_rows if std_left is None else std_left.unsqueeze(-1) * std_rows
        rows = torch.cat([rows, scaled], dim=1)
    return Factor(rows @ rows.mT, lambda w: w @ rows)

"""The pullback metric of a map through a small factor A with AᵀA = G.

A has as many rows as there are latents (twice as many with the scale's part), so A Aᵀ holds all
non-zero eigenvalues of the metric, which is never formed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import ops
from vaefast.functional.rows import finite, nan_where_bad
from vaefast.models.maps import Map, Maps
from vaefast.runtime import backends, matrices

__all__ = [
    "Factor",
    "Part",
    "decompose",
    "eigenvalues",
    "factor",
    "largest_eigenvalue",
    "largest_of_modules",
    "stacked",
    "units",
]

Part = tuple[Map, Tensor | None]  # and what multiplies the rows of its Jacobian, [b, m]
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
    maps: Maps,
    x: Tensor,
    of: str,
    *,
    inv_std: Tensor | None = None,
    std: bool = False,
    by_rows: bool = False,
) -> Factor:
    """The factor of the metric of one map at x [b, D].

    - encoder: A = J_μ, or diag(inv_std) J_μ; with ``std`` A = [J_μ; J_σ].
    - fisher, with ``inv_std``: A = [diag(1/σ) J_μ; √2 J_log σ], the first alone where σ is fixed.
    - decoder, at z = μ(x): A = (J_gᵀJ_g)^½.
    - reconstruction: A = S J_μ with SᵀS = G = J_gᵀJ_g; with ``std`` A = [S J_μ; diag(G)^½ J_σ].

    ``by_rows``: the encoder's Gram matrix from J itself in float64, so that √λ is as good as J;
    a fused one in float32 knows it to 3e-4 of the largest.

    Source: Khan, Storkey 2023, §3; mathematics.md 3.1, 3.2, 3.4.
    """
    if of in ("encoder", "fisher"):
        parts = stacked(maps, x, of, inv_std=inv_std, std=std)
        return _rows(x, parts) if by_rows or len(parts) > 1 else _single(x, *parts[0])
    metric = _decoder_gram(maps, maps.mean.value(x))  # [b, d, d]
    if of == "decoder":
        return Factor(metric, lambda w: w)
    base = factor(maps, x, "encoder", std=std, by_rows=by_rows)
    values, vectors = decompose(metric)
    root = values.sqrt().unsqueeze(-1) * vectors.mT  # S, SᵀS = G
    left, d = root, root.shape[1]
    if base.gram.shape[1] > d:
        left = torch.diag_embed(metric.diagonal(dim1=1, dim2=2).sqrt().repeat(1, 2))
        left[:, :d, :d] = root
    return Factor(left @ base.gram @ left.mT, lambda w: base.pull(w @ left))


def stacked(
    maps: Maps, x: Tensor, of: str, *, inv_std: Tensor | None = None, std: bool = False
) -> list[Part]:
    """The maps whose scaled Jacobians stand below each other in the encoder's or Fisher's A.

    Both heads are one part where they are one network, by J_σ = ½ diag(σ) J_log σ².

    Args:
        inv_std: 1/σ(x) for Fisher's, else what whitens J_μ, or None.
    """
    fisher = of == "fisher"
    if maps.std is None or not (std or fisher):
        return [(maps.mean, inv_std)]
    joint = len(maps.heads) == 1
    sigma = maps.posterior(x)[1] if joint and inv_std is None else None
    if inv_std is not None:
        sigma = 1.0 / inv_std
    if sigma is None:  # two maps, J_σ as it is
        return [(maps.mean, None), (maps.std, None)]
    scale = 2.0**0.5 / sigma if fisher else torch.ones_like(sigma)
    if not joint:
        return [(maps.mean, inv_std), (maps.std, scale)]
    if maps.scale is not maps.std:  # log σ²
        scale = 0.5 * sigma * scale
    first = torch.ones_like(sigma) if inv_std is None else inv_std
    return [(maps.heads[0], torch.cat([first, scale], dim=1))]


def decompose(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [b, m] (descending, not negative) and vectors [b, m, m] of symmetric matrices.

    NaN for a matrix that is not finite, which LAPACK would refuse together with all others.
    """
    good = finite(gram)
    parts = matrices.each(torch.linalg.eigh, torch.where(good[:, None, None], gram, 0.0))
    values, vectors = (torch.cat(part) for part in zip(*parts))
    values, vectors = nan_where_bad(good, values.clamp(min=0.0), vectors)
    return values.flip(1), vectors.flip(2)


def eigenvalues(gram: Tensor) -> Tensor:
    """Those of :func:`decompose`, in half of its time; equal to round-off."""
    good = finite(gram)
    parts = matrices.each(torch.linalg.eigvalsh, torch.where(good[:, None, None], gram, 0.0))
    return nan_where_bad(good, torch.cat(parts).clamp(min=0.0))[0].flip(1)


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
    return largest_eigenvalue(gram) if gram.is_cuda else eigenvalues(gram)[:, 0]


def units(x: Tensor, size: int) -> Tensor:
    """The unit vectors of R^size as probes of every row, [b, size, size]."""
    return torch.eye(size, dtype=x.dtype, device=x.device).expand(len(x), -1, -1)


def _single(x: Tensor, part: Map, scale: Tensor | None) -> Factor:
    wide = 1.0 if scale is None else scale.double().unsqueeze(1)
    return Factor(part.gram(x, scale), lambda w: part.vjp(x, (w * wide).to(x.dtype)).double())


def _rows(x: Tensor, parts: list[Part]) -> Factor:
    rows = []
    for part, scale in parts:
        own = part.vjp(x, units(x, part.outputs)).double()  # [b, d, n]
        rows.append(own if scale is None else scale.double().unsqueeze(-1) * own)
    whole = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
    return Factor(whole @ whole.mT, lambda w: w @ whole)


def _decoder_gram(maps: Maps, z: Tensor) -> Tensor:
    """J_gᵀJ_g [b, d, d] float64, by d forward products."""
    columns = maps.pixels.jvp(z, units(z, z.shape[1])).double()  # [b, d, D]
    return columns @ columns.mT

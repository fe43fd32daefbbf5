"""A Jacobian as an operator on its smaller side, per row, and random vectors for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import philox
from vaefast.geometry.metric import Part, stacked
from vaefast.geometry.points import Points
from vaefast.models.maps import Map
from vaefast.philox import MAX_LANE, Use
from vaefast.runtime import memory

__all__ = ["DISTRIBUTIONS", "Operator", "gaussian", "operator", "probes_of"]

DISTRIBUTIONS = ("gaussian", "signs", "sphere", "orthogonal")


class Operator(NamedTuple):
    """J, or Jᵀ where that side is smaller, at each of b points.

    Args:
        size: dimension of the side that the probes live on.
        half: u [b, K, size] ↦ the product on the other side.
        back: the transposed product.
        squares: u ↦ ‖half(u)‖² [b, K] float64.
        on_inputs: whether that side is the map's input.
    """

    size: int
    half: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]
    squares: Callable[[Tensor], Tensor]
    on_inputs: bool = False


def operator(points: Points, of: str, *, std: bool = False) -> Operator:
    """The operator u ↦ Aᵀu of the metric's factor A, or v ↦ J_g v for the decoder at z = μ(x).

    With ``std`` of the reconstruction A = [J_g J_μ; diag(J_gᵀJ_g)^½ J_σ]: the diagonal takes a
    product for each latent, once.
    """
    maps, x = points.maps, points.x
    if of == "decoder":
        g, z = maps.pixels, maps.mean.value(x)
        return Operator(
            size=z.shape[1],
            half=lambda v: g.jvp(z, v),
            back=lambda w: g.vjp(z, w),
            squares=lambda v: g.jvp_squares(z, v),
            on_inputs=True,
        )
    if of == "reconstruction":
        parts: list[Part] = [(maps.reconstruction, points.inv_std)]
        if std and maps.std is not None:
            parts.append((maps.std, _column_lengths(maps.pixels, maps.mean.value(x))))
    else:
        parts = stacked(maps, x, of, inv_std=points.inv_std, std=std)
    first, *others = [_scaled(x, part, scale) for part, scale in parts]
    return _below(first, others[0]) if others else first


def gaussian(points: Points, size: int, count: int, seed: int) -> Tensor:
    """[b, count, size] standard normal probes; probe k of a row is the same for any count."""
    number = torch.arange(count, device=points.x.device).repeat(len(points.x))
    probes = philox.normal(
        size,
        seed=seed,
        index=points.index.repeat_interleave(count),
        step=number // MAX_LANE,
        lane=number % MAX_LANE,
        use=Use.PROBE,
        dtype=points.x.dtype,
    )
    return probes.view(len(points.x), count, size)


def probes_of(points: Points, size: int, count: int, seed: int, distribution: str) -> Tensor:
    """[b, count, size] probes u with E uuᵀ = I.

    - ``"gaussian"``: N(0, I); ``"signs"``: ±1, each with probability ½.
    - ``"sphere"``: uniform on the sphere of radius √size.
    - ``"orthogonal"``: the same, orthogonal to each other, at most ``size`` of them.
    """
    if distribution == "orthogonal":
        count = min(count, size)
    normal = gaussian(points, size, count, seed)
    if distribution == "gaussian":
        return normal
    if distribution == "signs":
        return torch.where(normal < 0, -1.0, 1.0).to(normal.dtype)
    wide = normal.double()
    if distribution == "orthogonal":
        columns, corner = torch.linalg.qr(wide.mT)
        wide = (columns * corner.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)).mT
    length = torch.linalg.vector_norm(wide, dim=2, keepdim=True)
    return (wide * (size**0.5 / length)).to(normal.dtype)


def _column_lengths(part: Map, z: Tensor) -> Tensor:
    """‖J e_i‖ of each column of the Jacobian at z [b, d], some columns at a time."""
    b, d = z.shape
    unit = torch.eye(d, dtype=z.dtype, device=z.device)
    columns = memory.row_chunks(d, 4 * z.element_size() * b * (d + part.outputs))
    squares = [part.jvp_squares(z, unit[c].expand(b, -1, -1)) for c in columns]
    return torch.cat(squares, dim=1).sqrt().to(z.dtype)


def _scaled(x: Tensor, part: Map, inv_std: Tensor | None) -> Operator:
    """u ↦ (diag(inv_std) J)ᵀu."""
    scale = x.new_ones(1) if inv_std is None else inv_std.unsqueeze(1)
    return Operator(
        size=part.outputs,
        half=lambda u: part.vjp(x, scale * u),
        back=lambda w: scale * part.jvp(x, w),
        squares=lambda u: part.vjp_squares(x, scale * u),
    )


def _below(first: Operator, second: Operator) -> Operator:
    """Of the two matrices A below each other."""
    n = first.size

    def half(u: Tensor) -> Tensor:
        return first.half(u[..., :n].contiguous()) + second.half(u[..., n:].contiguous())

    return Operator(
        size=n + second.size,
        half=half,
        back=lambda w: torch.cat([first.back(w), second.back(w)], dim=-1),
        squares=lambda u: torch.linalg.vector_norm(half(u), dim=-1, dtype=torch.float64).square(),
    )

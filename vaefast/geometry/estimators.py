"""Estimates of a Jacobian's norms from products with random vectors, per row.

All of them see the Jacobian as an operator on its smaller side: rows for a map to the latents,
columns for the decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy import special
from torch import Tensor

from vaefast import philox
from vaefast.geometry.points import Points
from vaefast.philox import MAX_LANE, Use

__all__ = ["Operator", "chi_square_factor", "gaussian", "hutchpp", "operator", "power_iteration"]


class Operator(NamedTuple):
    """J, or Jᵀ where that side is smaller, at each of b points.

    Args:
        size: dimension of the side that the probes live on.
        half: u [b, K, size] ↦ the product on the other side.
        back: the transposed product.
        squares: u ↦ ‖half(u)‖² [b, K] float64.
    """

    size: int
    half: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]
    squares: Callable[[Tensor], Tensor]


def operator(points: Points, of: str) -> Operator:
    """The operator u ↦ (diag(inv_std) J)ᵀu, or v ↦ J_g v for the decoder at z = μ(x)."""
    maps, x = points.maps, points.x
    if of == "decoder":
        g, z = maps.pixels, maps.mean.value(x)
        return Operator(
            size=z.shape[1],
            half=lambda v: g.jvp(z, v),
            back=lambda w: g.vjp(z, w),
            squares=lambda v: g.jvp_squares(z, v),
        )
    f = maps.mean if of == "encoder" else maps.reconstruction
    scale = x.new_ones(1) if points.inv_std is None else points.inv_std.unsqueeze(1)
    return Operator(
        size=f.outputs,
        half=lambda u: f.vjp(x, scale * u),
        back=lambda w: scale * f.jvp(x, w),
        squares=lambda u: f.vjp_squares(x, scale * u),
    )


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


def chi_square_factor(probes: int, confidence: float) -> float:
    """c with P(‖J‖_F² ≤ c·Σ_k‖Jv_k‖²) ≥ confidence for K Gaussian probes and any J.

        c = 1/χ²_{K,α},  α = 1 − confidence,  P(χ²_K ≤ χ²_{K,α}) = α

    Raises:
        ValueError: α > P(χ²_K ≤ K), where rank one is no longer the worst case.

    Source: mathematics.md 9; Székely, Bakirov 2003 for one probe; Roosta-Khorasani, Székely,
    Ascher 2015.
    """
    alpha, limit = 1.0 - confidence, float(special.chdtr(probes, probes))
    if not 0.0 < alpha <= limit:
        raise ValueError(
            f"upper_confidence must lie in [{1 - limit:.3f}, 1) with {probes} probes, "
            f"got {confidence:g}"
        )
    return 1.0 / float(2.0 * special.gammaincinv(0.5 * probes, alpha))


def hutchpp(op: Operator, probes: Tensor) -> Tensor:
    """Hutch++ estimate of ‖J‖_F² [b] float64 from K probes [b, K, size], K ≥ 3.

    A third of the probes sketches the range of JJᵀ, whose part of the trace is exact; the other
    probes estimate the rest. Exact when a third of K reaches the size.

    Source: Meyer, Musco, Musco, Woodruff, "Hutch++: optimal stochastic trace estimation", 2021.
    """
    third = probes.shape[1] // 3
    sketch, rest = probes[:, : min(third, op.size)], probes[:, third:].double()
    image = op.back(op.half(sketch)).double()
    basis = torch.linalg.qr(torch.nan_to_num(image).mT).Q  # [b, size, c]
    rest = rest - (rest @ basis) @ basis.mT
    exact = op.squares(basis.mT.to(probes.dtype)).sum(1)
    return exact + op.squares(rest.to(probes.dtype)).mean(1)


def power_iteration(op: Operator, start: Tensor, iterations: int) -> Tensor:
    """‖half(u)‖/‖u‖ [b] float64 after power steps on JJᵀ from start [b, 1, size]: at most ‖J‖₂."""
    u = start
    for _ in range(iterations):
        image = op.back(op.half(u)).double()
        length = torch.linalg.vector_norm(image, dim=2, keepdim=True)
        u = torch.where(length > 0, image / length, u.double()).to(start.dtype)
    length = torch.linalg.vector_norm(u.double(), dim=2)
    return (op.squares(u).sqrt() / length).squeeze(1)

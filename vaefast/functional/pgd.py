"""A projected gradient step, for images [B, D]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaefast.functional.norms import row_norm, row_peak

__all__ = ["projected_step", "rounded_down", "rounded_down_to", "shortened"]


def projected_step(
    x_adv: Tensor,
    grad: Tensor,
    x: Tensor,
    alpha: float | Tensor,
    eps: float | Tensor,
    low: float | Tensor,
    high: float | Tensor,
    norm: str,
    norm_eps: float,
    order: str = "project_clip",
) -> Tensor:
    """One ascent step, projected to the ball around ``x`` and clipped to the box, in that order.

    All images are [B, D]; ``alpha``, ``eps``, ``low``, ``high`` are floats or [1 or B, 1 or D],
    in ℓ2 ``alpha`` and ``eps`` with one column.
    """
    if norm == "linf":
        moved = x_adv + alpha * grad.sign()
        not_finite = 0.0 * grad + 0.0 * x_adv + 0.0 * x  # NaN for NaN and ±inf, else 0
    else:
        moved = x_adv + alpha * _direction(grad, norm_eps)
        infinite = (0.0 * moved).sum(1, keepdim=True)  # clipping would make it finite
        not_finite = infinite + _nan_rows(low) + _nan_rows(high)
    if order == "clip_project":
        return _project(_clip(moved, low, high), x, eps, norm) + not_finite
    return _clip(_project(moved, x, eps, norm), low, high) + not_finite


def shortened(alpha: float | Tensor, grad: Tensor, added: float) -> Tensor:
    """alpha·n/(n + added) [B], n = ‖grad‖₂: alpha·grad/n becomes alpha·grad/(n + added).

    n as torch takes it in the gradient's dtype, 0 where its square underflows.
    """
    length = torch.linalg.vector_norm(grad.flatten(1), dim=1)
    return alpha * (length / (length + added))


def rounded_down(value: float, dtype: torch.dtype) -> float:
    """The largest number of ``dtype`` that is not above ``value``, at least 0."""
    info = torch.finfo(dtype)
    if value >= info.max:
        return value
    unit = max(math.ldexp(info.eps, math.frexp(value)[1] - 1), info.smallest_normal * info.eps)
    return math.floor(value / unit) * unit


def rounded_down_to(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The same for a tensor."""
    near = values.to(dtype)
    if near.dtype == values.dtype:
        return near
    below = torch.nextafter(near, torch.zeros_like(near))
    return torch.where(near.to(torch.float64) > values.to(torch.float64), below, near)


def _direction(grad: Tensor, norm_eps: float) -> Tensor:
    """grad / max(‖grad‖₂, norm_eps), relative to the row's largest entry."""
    peak = row_peak(grad)
    unit = grad / peak
    length = torch.linalg.vector_norm(unit, dim=1, keepdim=True)
    smallest = max(norm_eps, torch.finfo(grad.dtype).smallest_normal)
    return unit / torch.maximum(length, smallest / peak)


def _project(y: Tensor, x: Tensor, eps: float | Tensor, norm: str) -> Tensor:
    if norm == "linf":
        return _inside(_clip(y, x - eps, x + eps), x, eps)
    delta = y - x
    distance = row_norm(delta)
    return x + torch.where(distance <= eps, torch.ones_like(distance), eps / distance) * delta


def _inside(y: Tensor, x: Tensor, eps: float | Tensor) -> Tensor:
    """y; or its neighbour towards x, where |y − x|, without any rounding, exceeds eps."""
    delta = y - x
    shift = delta - y
    error = (y - (delta - shift)) - (x + shift)  # y − x = delta + error (Knuth)
    outside = (delta.abs() - eps) + error * delta.sign() > 0
    nearer = torch.nextafter(y.detach(), x.detach()) - y.detach()
    return y + torch.where(outside, nearer, torch.zeros_like(y))  # exact


def _clip(y: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    return y.clamp(min=low).clamp(max=high)  # torch.clamp keeps NaN


def _nan_rows(bound: float | Tensor) -> float | Tensor:
    """NaN for rows where a bound is NaN, else 0: [1 or B, 1], or 0 for a float."""
    if not isinstance(bound, Tensor):
        return 0.0
    nan = bound.isnan().any(dim=1, keepdim=True)
    return torch.zeros_like(bound[:, :1]).masked_fill(nan, torch.nan)

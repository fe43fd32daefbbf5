"""The ℓ1 ball cut by a box: its exact projection, the steepest step in it, uniform points of it."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["projected", "steepest", "uniform"]


def projected(y: Tensor, x: Tensor, eps: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The point of {u : ‖u − x‖₁ ≤ eps, low ≤ u ≤ high} nearest to y in ℓ2, float64.

    u = x + sign(δ)·clip(|δ| − λ, 0, room), δ = y − x, room what the box leaves in δ's direction,
    and λ ≥ 0 the smallest with ‖u − x‖₁ ≤ eps: found exactly, among the 2D points where its
    slope changes.

    Args:
        y: [B, D].
        x: [B, D], in the box.
        eps: [B], radii, may be infinite.
        low: [B], smallest valid entry.
        high: [B], largest.

    Source: Croce and Hein, "Mind the box: ℓ1-APGD for sparse adversarial attacks", 2021, §2.
    """
    x, delta = x.double(), y.double() - x.double()
    low, high, eps = (value.double().unsqueeze(1) for value in (low, high, eps))
    size = delta.abs()
    room = torch.where(delta > 0, high - x, x - low).clamp(min=0.0)
    kept = torch.minimum((size - _threshold(size, room, eps)).clamp(min=0.0), room)
    return x + delta.sign() * kept


def steepest(grad: Tensor, point: Tensor, alpha: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The step d of largest ⟨grad, d⟩ with ‖d‖₁ ≤ alpha that stays in the box, float64.

    Entries with the largest gradients move first, each as far as the box lets it. NaN where a
    row's gradient holds NaN or infinity.
    """
    low, high = low.double().unsqueeze(1), high.double().unsqueeze(1)
    grad, point = grad.double(), point.double()
    room = torch.where(grad > 0, high - point, point - low).clamp(min=0.0)
    room = room.masked_fill(grad == 0, 0.0)
    order = grad.abs().argsort(dim=1, descending=True, stable=True)
    sorted_room = room.gather(1, order)
    before = sorted_room.cumsum(1) - sorted_room
    moved = torch.minimum(sorted_room, (alpha.double().unsqueeze(1) - before).clamp(min=0.0))
    length = torch.zeros_like(grad).scatter(1, order, moved)
    return grad.sign() * length + (0.0 * grad).sum(1, keepdim=True)


def uniform(entries: Tensor, rest: Tensor) -> Tensor:
    """Points uniform in the unit ℓ1 ball from numbers uniform in (0, 1), [B, D] and [B, 1].

    D signed exponentials over the sum of D + 1 of them.
    """
    centred = 2.0 * entries - 1.0
    lengths = -torch.log(centred.abs().clamp(min=torch.finfo(entries.dtype).tiny))
    return centred.sign() * lengths / (lengths.sum(1, keepdim=True) - torch.log(rest))


def _threshold(size: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    """λ [B, 1]: Σ clip(size − λ, 0, room) = eps, or 0 where it is smaller without."""
    points = torch.cat((size, (size - room).clamp(min=0.0)), 1)
    slopes = torch.cat((torch.ones_like(size), -torch.ones_like(size)), 1)
    points, order = points.sort(dim=1, descending=True, stable=True)
    active = slopes.gather(1, order).cumsum(1)  # entries that shrink below this point
    gaps = points[:, :-1] - points[:, 1:]
    total = torch.cat((torch.zeros_like(eps), (active[:, :-1] * gaps).cumsum(1)), 1)
    reached = total >= eps
    at = reached.to(torch.int8).argmax(1, keepdim=True)  # the first; 0 where there is none
    before = (at - 1).clamp(min=0)
    above, slope = total.gather(1, before), active.gather(1, before).clamp(min=1.0)
    found = points.gather(1, before) - (eps - above) / slope
    inside = torch.minimum(size, room).sum(1, keepdim=True) <= eps
    return torch.where(inside, torch.zeros_like(found), found.clamp(min=0.0))

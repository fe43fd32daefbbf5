"""A projected gradient step, for images [B, D]."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast.functional.norms import row_norm

__all__ = ["projected_step"]


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
) -> Tensor:
    """One ascent step, projected to the ball around ``x`` and then clipped to the box.

    All images are [B, D]; ``alpha``, ``eps``, ``low``, ``high`` are floats or [B, 1].
    """
    if norm == "linf":
        not_finite = 0.0 * grad + 0.0 * x_adv + 0.0 * x  # NaN for NaN and ±inf, else 0
        stepped = _clip(x_adv + alpha * grad.sign(), x - eps, x + eps)
        return _clip(stepped, low, high) + not_finite
    delta = x_adv + alpha / row_norm(grad).clamp(min=norm_eps) * grad - x
    distance = row_norm(delta)
    shrink = torch.where(distance <= eps, torch.ones_like(distance), eps / distance)
    return _clip(x + shrink * delta, low, high)


def _clip(y: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    return y.clamp(min=low).clamp(max=high)  # torch.clamp keeps NaN

"""Row norms that neither overflow nor underflow."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["row_norm", "row_peak"]


def row_norm(v: Tensor) -> Tensor:
    """‖v_i‖₂ of every row, [B, D] -> [B, 1]; NaN where a row holds NaN or infinity."""
    scale = row_peak(v)
    return scale * torch.linalg.vector_norm(v / scale, dim=1, keepdim=True)


def row_peak(v: Tensor) -> Tensor:
    """max_j |v_ij|, at least the smallest normal number: [B, D] -> [B, 1], a constant of grad."""
    return v.detach().abs().amax(1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)

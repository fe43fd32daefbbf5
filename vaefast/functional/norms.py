"""Row norms that neither overflow nor underflow."""

from __future__ import annotations

import torch
from torch import Tensor


def row_norm(v: Tensor) -> Tensor:
    """‖v_i‖₂ of every row, [B, D] -> [B, 1]; NaN where a row holds NaN or infinity."""
    peak = v.detach().abs().amax(1, keepdim=True)
    scale = peak.clamp(min=torch.finfo(v.dtype).tiny)
    return scale * torch.linalg.vector_norm(v / scale, dim=1, keepdim=True)

"""What torch's defaults are now, for the few places that are meant to follow them."""

from __future__ import annotations

import torch

__all__ = ["default_device"]


def default_device() -> torch.device:
    """Where torch makes tensors that name no device.

    ``torch.get_default_device()`` of torch 2.6 raises once a default was set and unset, and does
    not know of ``with torch.device(...)``.
    """
    return torch.empty(0, device=None, dtype=None).device

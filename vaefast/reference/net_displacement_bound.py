"""``net_displacement_bound`` in plain PyTorch: batched matrix products in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from vaefast.functional.displacement import Displacement

if TYPE_CHECKING:
    from vaefast.ops.net_displacement_bound import Call

__all__ = ["net_displacement_bound"]


def net_displacement_bound(call: Call) -> Tensor:
    """Bounds of ‖scale ⊙ (net(x') − net(x))‖₂ over the balls, per group: [B, groups]."""
    return Displacement(call.x, call.net, call.scale, call.groups).bound(call.radius, call.form)

"""``leapfrog_step`` in plain PyTorch: a kick of the momentum and a drift of the position."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast.functional.rows import finite, nan_where_bad

__all__ = ["drifted", "kicked", "leapfrog_step"]


def leapfrog_step(
    z: Tensor,
    p: Tensor,
    grad: Tensor,
    step: Tensor,
    *,
    inv_mass: Tensor | None = None,
    kick: float = 1.0,
    drift: bool = True,
) -> None:
    """p ← p − kick·step·grad, then z ← z + step·M⁻¹p if ``drift``; in place on z and p [N, d]."""
    momentum = kicked(p, grad, step, kick)
    if not drift:
        (momentum,) = nan_where_bad(finite(p, grad, step), momentum)
        p.copy_(momentum)
        return
    mass = None if inv_mass is None else per_chain(inv_mass, z)
    good = finite(z, p, grad, step, mass)
    position, momentum = nan_where_bad(good, drifted(z, momentum, step, mass), momentum)
    z.copy_(position)
    p.copy_(momentum)


def kicked(p: Tensor, grad: Tensor, step: Tensor, kick: float = 1.0) -> Tensor:
    """p − kick·step·grad, step [N]."""
    return torch.addcmul(p, step.unsqueeze(-1), grad, value=-kick)


def drifted(z: Tensor, p: Tensor, step: Tensor, inv_mass: Tensor | None = None) -> Tensor:
    """z + step·M⁻¹p, step [N], inv_mass [N, d] or None for unit mass."""
    velocity = p if inv_mass is None else inv_mass * p
    return torch.addcmul(z, step.unsqueeze(-1), velocity)


def per_chain(inv_mass: Tensor, z: Tensor) -> Tensor:
    """inv_mass [B, d] for each of the N = B·C rows of z."""
    return inv_mass.repeat_interleave(len(z) // max(len(inv_mass), 1), dim=0)

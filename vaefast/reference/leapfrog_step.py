"""``leapfrog_step`` in plain PyTorch: a kick of the momentum and a drift of the position."""

from __future__ import annotations

from torch import Tensor

from vaefast.functional.leapfrog import drifted, kicked, per_chain
from vaefast.functional.rows import finite, nan_where_bad

__all__ = ["leapfrog_step"]


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

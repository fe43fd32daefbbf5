"""``leapfrog_step`` in plain PyTorch: a kick of the momentum and a drift of the position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaefast.functional.leapfrog import drifted, kicked, per_chain
from vaefast.functional.rows import finite, nan_where_bad

if TYPE_CHECKING:
    from vaefast.ops.leapfrog_step import Call

__all__ = ["leapfrog_step"]


def leapfrog_step(call: Call) -> None:
    """p ← p − kick·step·grad, then z ← z + step·M⁻¹p if ``drift``; in place on z and p [N, d]."""
    z, p, grad, step = call.z, call.p, call.grad, call.step
    momentum = kicked(p, grad, step, call.kick)
    if not call.drift:
        (momentum,) = nan_where_bad(finite(p, grad, step), momentum)
        p.copy_(momentum)
        return
    mass = None if call.inv_mass is None else per_chain(call.inv_mass, z)
    good = finite(z, p, grad, step, mass)
    position, momentum = nan_where_bad(good, drifted(z, momentum, step, mass), momentum)
    z.copy_(position)
    p.copy_(momentum)

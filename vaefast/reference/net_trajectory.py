"""``net_trajectory`` in plain PyTorch: L leapfrog steps on an MLP decoder's posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from vaefast.functional.leapfrog import leapfrogs, per_chain
from vaefast.functional.rows import chains, chunked, finite, nan_where_bad, of_chains, part
from vaefast.reference.net_potential import Target

if TYPE_CHECKING:
    from vaefast.ops.net_trajectory import Call

__all__ = ["net_trajectory", "on_target"]


def on_target(
    target: Target, inv_mass: Tensor | None, root: Tensor | None, leapfrog: int
) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The trajectory of ``leapfrog`` steps on a posterior; inv_mass is [B, d] or None,
    root [B, d, d] or None.
    """

    def trajectory(
        z: Tensor, p: Tensor, grad: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return leapfrogs(
            target.gradient,
            target.energy_and_gradient,
            z,
            p,
            grad,
            step=step,
            inv_mass=None if inv_mass is None else per_chain(inv_mass, z),
            leapfrog=leapfrog,
            root=root,
        )

    return trajectory


def net_trajectory(call: Call) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The end (z, p, grad, U [N] float64) of ``leapfrog`` steps from (z, p) [N, d]."""
    target, count = Target.of(call), chains(call.z, call.x)

    def run(rows: slice) -> tuple[Tensor, ...]:
        own, posterior = of_chains(rows, count), target.rows(rows)
        mass, root = part(call.inv_mass, rows), part(call.root, rows)
        state = call.z[own], call.p[own], call.grad[own], call.step[own]
        of_input = posterior.good() & finite(call.x[rows], mass, root)
        good = finite(*state) & of_input.repeat_interleave(count)
        return nan_where_bad(good, *on_target(posterior, mass, root, call.leapfrog)(*state))

    z, p, grad, U = chunked(run, len(call.x), target.bytes_per_input(call.z))
    return z, p, grad, U

"""``net_trajectory_vjp`` in plain PyTorch: the adjoint of L leapfrog steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaefast.functional.leapfrog import drifted, kicked, per_chain
from vaefast.functional.rows import chains, chunked, finite, nan_where_bad, of_chains, part
from vaefast.functional.second_order import bytes_per_row, hessian_products
from vaefast.reference.net_potential import Target

if TYPE_CHECKING:
    from vaefast.ops.net_trajectory_vjp import Call

__all__ = ["net_trajectory_vjp"]


def net_trajectory_vjp(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """Cotangents of a trajectory's start z and p [N, d] and of the images [B, D]."""
    target, count, length = Target.of(call), chains(call.z, call.x), call.leapfrog

    def run(rows: slice) -> tuple[Tensor, ...]:
        own, posterior = of_chains(rows, count), target.rows(rows)
        mass, z, p, step = part(call.inv_mass, rows), call.z[own], call.p[own], call.step[own]
        upstream, upstream_p = call.upstream[own], part(call.upstream_p, own)
        accepted = part(call.accepted, own)
        of_input = posterior.good() & finite(call.x[rows], mass)
        good = finite(z, p, step, upstream, upstream_p) & of_input.repeat_interleave(count)
        masses = None if mass is None else per_chain(mass, z)
        steps = _Steps(posterior, step, masses)
        path = steps.positions(z, p, length if upstream_p is None else length + 1)
        into = steps.back(path, length, upstream, upstream_p)
        into_z, into_p, into_x = nan_where_bad(good, *into)
        if accepted is not None:
            moved = accepted.unsqueeze(-1)
            into_z = torch.where(moved, into_z, upstream)
            into_p, into_x = (torch.where(moved, t, 0.0) for t in (into_p, into_x))
        return into_z, into_p, into_x.view(len(posterior.x), count, call.x.shape[1]).sum(1)

    per_chain_bytes = bytes_per_row(call.net, call.z) + 2 * length * call.z[:1].nbytes
    into_z, into_p, into_x = chunked(run, len(call.x), count * per_chain_bytes)
    return into_z, into_p, into_x


class _Steps:
    """Leapfrogs on the posterior of a few inputs, and their adjoint."""

    def __init__(self, target: Target, step: Tensor, inv_mass: Tensor | None) -> None:
        self.target, self.step, self.inv_mass = target, step, inv_mass

    def positions(self, z: Tensor, p: Tensor, count: int) -> list[Tensor]:
        """The first ``count`` positions, z itself among them: a gradient for each other one."""
        path = [z]
        for index in range(count - 1):
            p = kicked(p, self.target.gradient(path[-1]), self.step, 1.0 if index else 0.5)
            path.append(drifted(path[-1], p, self.step, self.inv_mass))
        return path

    def back(
        self, path: list[Tensor], leapfrog: int, up_z: Tensor, up_p: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Cotangents of z₀, p₀ and of each chain's image, from those of the end.

        The adjoint of a drift adds ε M⁻¹ z̄ to p̄, that of a kick takes c ∂²U/∂z² p̄ from z̄ and
        c ∂²U/∂x∂z p̄ from x̄; both in opposite order.
        """
        into_x = torch.zeros_like(self.target.x).repeat_interleave(
            len(up_z) // max(len(self.target.x), 1), dim=0
        )
        state = up_z, torch.zeros_like(up_z) if up_p is None else up_p, into_x
        if up_p is not None:
            state = self._kick(path[leapfrog], *state, 0.5)
        for index in reversed(range(leapfrog)):
            into_z, into_p, into_x = state
            into_p = drifted(into_p, into_z, self.step, self.inv_mass)
            state = self._kick(path[index], into_z, into_p, into_x, 1.0 if index else 0.5)
        return state

    def _kick(
        self, z: Tensor, into_z: Tensor, into_p: Tensor, into_x: Tensor, kick: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        curved, mixed = hessian_products(z, into_p, *self.target)
        into_x = kicked(into_x, mixed, self.step, kick)
        return kicked(into_z, curved, self.step, kick), into_p, into_x

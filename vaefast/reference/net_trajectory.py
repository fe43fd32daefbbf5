"""``net_trajectory`` in plain PyTorch: L leapfrog steps on an MLP decoder's posterior."""

from __future__ import annotations

from torch import Tensor

from vaefast.functional.hmc import Trajectory
from vaefast.functional.leapfrog import leapfrogs, per_chain
from vaefast.functional.rows import chains, chunked, finite, nan_where_bad, of_chains, part
from vaefast.reference.net_potential import Target
from vaefast.types import Network

__all__ = ["net_trajectory", "on_target"]


def on_target(target: Target, inv_mass: Tensor | None, leapfrog: int) -> Trajectory:
    """The trajectory of ``leapfrog`` steps on a posterior; inv_mass is [B, d] or None."""

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
        )

    return trajectory


def net_trajectory(
    z: Tensor,
    p: Tensor,
    grad: Tensor,
    x: Tensor,
    net: Network,
    *,
    likelihood: str,
    obs_std: float = 1.0,
    step: Tensor,
    inv_mass: Tensor | None = None,
    leapfrog: int,
    precision: str = "ieee",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The end (z, p, grad, U [N] float64) of ``leapfrog`` steps from (z, p) [N, d].

    ``precision`` is what a backend may stoop to; this one always computes in the input dtype.
    """
    target = Target(x, net, likelihood, obs_std)
    count = chains(z, x)

    def run(rows: slice) -> tuple[Tensor, ...]:
        own, mass = of_chains(rows, count), part(inv_mass, rows)
        state = z[own], p[own], grad[own], step[own]
        good = finite(*state) & finite(x[rows], mass).repeat_interleave(count)
        end = on_target(target.rows(rows), mass, leapfrog)(*state)
        return nan_where_bad(good, *end)

    z_end, p_end, grad_end, U = chunked(run, len(x), target.bytes_per_input(z))
    return z_end, p_end, grad_end, U

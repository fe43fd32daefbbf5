"""The energy errors of some trajectories; the fused op keeps only what they lead to."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast.functional.hmc import Draws, State, transition
from vaefast.hmc.options import EVERY
from vaefast.hmc.target import Target

__all__ = ["energy_errors"]


def energy_errors(
    target: Target, draws: Draws, z: Tensor, *, first_step: int, step: Tensor
) -> Tensor:
    """H at the end − H at the start [N, T // 64] float64, nats, of every 64th of T trajectories.

    Each is run once more, from the draw before it with its own random numbers.

    Args:
        z: [N, T, d], the states after transitions ``first_step``, ``first_step`` + 1, ...
        step: [B], the step size of all of them.
    """
    found = []
    for t in range(EVERY - 1, z.shape[1], EVERY):
        at = z[:, t - 1].contiguous()
        state = State(at, *target.potential(at, safe=at))
        _, info = transition(
            state,
            target.trajectory(),
            step=step,
            inv_mass=target.inv_mass,
            noise=draws.noise(at, first_step + t),
        )
        found.append(info.energy_error)
    return torch.stack(found, 1) if found else z.new_empty(len(z), 0, dtype=torch.float64)

"""A run of HMC transitions, for any way of making one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional.hmc import Draws, Info, State, Trajectory, transition

__all__ = ["Chain", "chain", "kept", "repeated"]


class Chain(NamedTuple):
    """The state after T transitions of N = B·C chains, their counts and the kept draws."""

    z: Tensor  # [N, d]
    U: Tensor  # [N] float64, nats
    grad: Tensor  # [N, d]
    accepted: Tensor  # [N] int64
    divergent: Tensor  # [N] int64
    draws: Tensor  # [N, n, d]
    energies: Tensor  # [N, n] float64, U of each draw


def kept(first_step: int, steps: int, thin: int) -> int:
    """How many transitions are kept: those whose index plus one is a multiple of ``thin``."""
    return (first_step + steps) // thin - first_step // thin if thin else 0


def chain(
    trajectory: Trajectory,
    z: Tensor,
    U: Tensor,
    grad: Tensor,
    *,
    step: Tensor,
    inv_mass: Tensor | None = None,
    jitter: float = 0.0,
    seed: int = 0,
    index: Tensor,
    first_step: int = 0,
    steps: int,
    thin: int = 0,
) -> Chain:
    """Transitions ``first_step`` to ``first_step + steps − 1`` with step sizes [B].

    Two runs, the second with its ``first_step`` where the first one ended, are one longer run.
    Other arguments as those of :func:`vaefast.functional.hmc.step`.
    """
    noises = Draws(index, seed, jitter).noises(z, first_step, steps)

    def move(state: State, t: int) -> tuple[State, Info]:
        noise = next(noises)
        return transition(state, trajectory, step=step, inv_mass=inv_mass, noise=noise)

    start = State(z, U, grad)
    return repeated(move, start, first_step=first_step, steps=steps, thin=thin)


def repeated(
    move: Callable[[State, int], tuple[State, Info]],
    state: State,
    *,
    first_step: int,
    steps: int,
    thin: int = 0,
) -> Chain:
    """Transitions ``first_step`` to ``first_step + steps − 1``, in this order, each by ``move``.

    Every transition whose index plus one is a multiple of ``thin`` is kept; none with 0.
    """
    z, U = state.z, state.U
    accepted = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    divergent = torch.zeros_like(accepted)
    n = kept(first_step, steps, thin)
    draws, energies = z.new_empty((len(z), n, z.shape[1])), U.new_empty((len(z), n))
    for t in range(first_step, first_step + steps):
        state, info = move(state, t)
        accepted += info.accepted
        divergent += info.divergent
        if thin and (t + 1) % thin == 0:
            position = kept(first_step, t - first_step, thin)
            draws[:, position], energies[:, position] = state.z, state.U
    return Chain(*state, accepted, divergent, draws, energies)

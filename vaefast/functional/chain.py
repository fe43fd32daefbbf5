"""A run of HMC transitions, for any way of running the trajectory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional.transition import Trajectory, Transition, transition

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
    """How many transitions are kept: those whose number plus one is a multiple of ``thin``."""
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
    """Transitions ``first_step`` to ``first_step + steps − 1``; arguments as ``transition``'s.

    Two runs, the second with its ``first_step`` where the first one ended, are one longer run.
    """
    move = partial(
        transition,
        trajectory,
        step=step,
        inv_mass=inv_mass,
        jitter=jitter,
        seed=seed,
        index=index,
    )
    return repeated(move, z, U, grad, first_step=first_step, steps=steps, thin=thin)


def repeated(
    move: Callable[..., Transition],
    z: Tensor,
    U: Tensor,
    grad: Tensor,
    *,
    first_step: int,
    steps: int,
    thin: int,
) -> Chain:
    """:func:`chain` for any way of making transition t: ``move(z, U, grad, t=t)``."""
    accepted = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    divergent = torch.zeros_like(accepted)
    n = kept(first_step, steps, thin)
    draws, energies = z.new_empty((len(z), n, z.shape[1])), U.new_empty((len(z), n))
    for t in range(first_step, first_step + steps):
        moved = move(z, U, grad, t=t)
        z, U, grad = moved.z, moved.U, moved.grad
        accepted = accepted + moved.accepted
        divergent = divergent + moved.divergent
        if thin and (t + 1) % thin == 0:
            position = kept(first_step, t - first_step, thin)
            draws[:, position], energies[:, position] = z, U
    return Chain(z, U, grad, accepted, divergent, draws, energies)

"""Leapfrogs and transitions as users write them, in torch and in JAX; successive kicks merged."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vaefast.bench.ops import _nets as nets
from vaefast.bench.place import Place
from vaefast.types import Network

__all__ = ["LEAPFROGS", "ROWS", "STEP", "asked", "jax_trajectory", "jax_transitions"]
__all__ += ["trajectory", "transition", "transitions"]

ROWS = (1, 16, 64, 1024)
LEAPFROGS, STEP = 10, 1e-2  # leapfrogs on a CPU
AT_LEAST = {1: 1.8, 16: 1.8, 64: 1.3, 1024: 1.0}  # asked of the table's first shape, by N


def asked(place: Place, shape: nets.Shape, N: int) -> dict[str, float]:
    """What N chains are held against on a CPU, beside the best peer and beside the ceiling."""
    if not place.on_cpu or shape != nets.TABLE[0]:
        return {}
    return {"at_least": AT_LEAST[N], **({"percent_at_least": 85.0} if N == 1024 else {})}


def trajectory(
    z: Tensor,
    p: Tensor,
    grad: Tensor,
    x: Tensor,
    net: Network,
    potential: Callable,
    leapfrogs: int = LEAPFROGS,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """L gradients; the energy comes from the last one's forward pass."""
    p = torch.sub(p, grad, alpha=STEP / 2)
    for left in range(leapfrogs, 0, -1):
        z = torch.add(z, p, alpha=STEP)
        U, grad = potential(z, x, net, energy=left == 1)
        p = torch.sub(p, grad, alpha=STEP / 2 if left == 1 else STEP)
    return z, p, grad, U


def transition(
    z: Tensor, U: Tensor, grad: Tensor, p: Tensor, u: Tensor, x: Tensor, net: Network, run: Callable
) -> tuple[Tensor, Tensor, Tensor]:
    """``run`` maps (z, p, grad, x, mlp) to the trajectory's end; u is uniform in (0, 1)."""
    z_end, p_end, grad_end, U_end = run(z, p, grad, x, net)
    before, after = U + 0.5 * p.square().sum(1), U_end + 0.5 * p_end.square().sum(1)
    accepted = u < torch.exp(before - after)
    moved = accepted[:, None]
    z, grad = torch.where(moved, z_end, z), torch.where(moved, grad_end, grad)
    return z, torch.where(accepted, U_end, U), grad


def transitions(
    step: Callable, start: tuple[Tensor, Tensor, Tensor], p: Tensor, u: Tensor
) -> Tensor:
    """The last position; ``step`` maps (z, U, grad, p, u) to the next state, p is [T, N, d]."""
    state = start
    for momentum, uniform in zip(p, u):
        state = step(*state, momentum, uniform)
    return state[0]


def jax_trajectory(gradient: Callable, leapfrogs: int, last: Callable) -> Callable:
    """A function of (z, p, grad, x, *network); ``last`` gives the end's gradient and energy."""

    def run(z, p, grad, x, *network):
        import jax

        def leapfrog(_, state):
            z, p = state
            return z + STEP * p, p - STEP * gradient(z + STEP * p, x, *network)

        start = z, p - STEP / 2 * grad
        z, p = jax.lax.fori_loop(0, leapfrogs - 1, leapfrog, start)
        z = z + STEP * p
        grad, U = last(z, x, *network)
        return z, p - STEP / 2 * grad, grad, U

    return run


def jax_transitions(gradient: Callable, leapfrogs: int, last: Callable) -> Callable:
    """A function of (p [T, N, d], u [T, N], z, U, grad, x, *network), to the last position."""
    run = jax_trajectory(gradient, leapfrogs, last)

    def chain(p, u, z, U, grad, x, *network):
        import jax
        import jax.numpy as jnp

        def one(state, drawn):
            z, U, grad = state
            z_end, p_end, grad_end, U_end = run(z, drawn[0], grad, x, *network)
            before = U + 0.5 * jnp.square(drawn[0]).sum(1)
            accepted = drawn[1] < jnp.exp(before - U_end - 0.5 * jnp.square(p_end).sum(1))
            moved = accepted[:, None]
            z, grad = jnp.where(moved, z_end, z), jnp.where(moved, grad_end, grad)
            return (z, jnp.where(accepted, U_end, U), grad), None

        return jax.lax.scan(one, (z, U, grad), (p, u))[0][0]

    return chain

"""Trajectories and transitions as the peers run them, the inside at a precision.

As in ours, the last gradient of a trajectory and its energy come from the float32 weights. But
the precision is a global setting of torch and JAX: under "tf32" and "bf16" the peers' last
products run in tf32 as well, where ours take three passes for an exact chain (mathematics.md §10).
The peers are spared that work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from vaefast.bench.cases import Posterior
from vaefast.bench.ops import _hmc as hmc
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.ops._stacks import Stack
from vaefast.bench.place import Place, net_at
from vaefast.types import Network

__all__ = ["STEP", "Leaps", "by_vmap", "jax_parts", "leapfrogs", "looped", "replayed"]
__all__ += ["torch_leaps", "trajectory", "transition"]

STEP = hmc.STEP

State = Sequence[Tensor]  # z, U, grad
Step = Callable[..., State]  # of (z, U, grad, p, u)


def leapfrogs(place: Place) -> int:
    return place.table(hmc.LEAPFROGS, 20, 2)


class Leaps(NamedTuple):
    """What a trajectory is made of, as functions of (z, p)."""

    inner: Callable  # drift, gradient, whole kick
    last: Callable  # drift, gradient, half a kick: z, p, grad, U


def torch_leaps(case: Posterior, precision: str, potential: Callable, wrap: Callable) -> Leaps:
    """From ``potential(z, x, mlp, energy) -> (U, grad)``; ``wrap`` compiles, or leaves as it is."""
    x, net = case.x, case.net
    rounded = net_at(net, precision)

    def inner(z: Tensor, p: Tensor, x: Tensor, net: Network) -> tuple[Tensor, Tensor]:
        z = torch.add(z, p, alpha=STEP)
        return z, torch.sub(p, potential(z, x, net, energy=False)[1], alpha=STEP)

    def last(z: Tensor, p: Tensor, x: Tensor, net: Network) -> tuple[Tensor, ...]:
        z = torch.add(z, p, alpha=STEP)
        U, grad = potential(z, x, net, energy=True)
        return z, torch.sub(p, grad, alpha=STEP / 2), grad, U

    first, second = wrap(inner), wrap(last)
    return Leaps(lambda z, p: first(z, p, x, rounded), lambda z, p: second(z, p, x, net))


def by_vmap(z: Tensor, x: Tensor, net: Network, energy: bool = True) -> tuple[Tensor, Tensor]:
    """U and its gradient, one chain at a time as torch.func batches it."""

    def one(z: Tensor, x: Tensor) -> Tensor:
        logits = nets.forward(z, net).to(x.dtype)
        return (torch.nn.functional.softplus(logits) - x * logits).sum() + 0.5 * z.square().sum()

    gradient, U = vmap(grad_and_value(one))(z, x)
    return U, gradient


def trajectory(leaps: Leaps, z: Tensor, p: Tensor, grad: Tensor, L: int) -> tuple[Tensor, ...]:
    p = torch.sub(p, grad, alpha=STEP / 2)
    for _ in range(L - 1):
        z, p = leaps.inner(z, p)
    return leaps.last(z, p)


def transition(leaps: Leaps, case: Posterior, L: int) -> Step:
    def run(z: Tensor, p: Tensor, grad: Tensor, x: Tensor, net: Network) -> tuple[Tensor, ...]:
        return trajectory(leaps, z, p, grad, L)

    return lambda z, U, grad, p, u: hmc.transition(z, U, grad, p, u, case.x, case.net, run)


def looped(step: Step, start: tuple[Tensor, Tensor, Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of momenta [T, N, d] and uniforms [T, N] to the last position."""
    return lambda p, u: hmc.transitions(step, start, p, u)


def replayed(place: Place, step: Step, start: State) -> Callable[[Tensor, Tensor], Tensor]:
    """The same with a transition as one CUDA graph, its state updated in place."""
    state = [t.clone() for t in start]
    p, u = torch.ones_like(state[0]), torch.ones_like(state[1])

    def once() -> None:
        for held, new in zip(state, step(*state, p, u)):
            held.copy_(new)

    captured = place.captured(once)

    def run(momenta: Tensor, uniforms: Tensor) -> Tensor:
        captured.prepare()
        for held, first in zip(state, start):
            held.copy_(first)
        for momentum, uniform in zip(momenta, uniforms):
            p.copy_(momentum)
            u.copy_(uniform)
            captured()
        return state[0].clone()

    return run


def jax_parts(
    net: Network | Stack, precision: str, gpu: bool
) -> dict[str, tuple[Callable, Callable, tuple]]:
    """Name to the inner gradient, the last one with its energy, and the networks for both."""
    if not jx.installed(gpu=gpu):
        return {}
    weights, biases, _ = jx.network(net)
    rounded = net if isinstance(net, Stack) else net_at(net, precision)
    inner = jx.network(rounded)

    def last(z, x, *networks):
        return jx.gradient_and_energy(z, x, *networks[-2:], networks[2])

    def plain(z, x, *networks):
        return jx.gradient(z, x, *networks[:3])

    def by_hand(z, x, *networks):
        return jx.hand_gradient(z, x, *networks[:4])

    by_grad = {"JAX jit": (plain, last, (*inner, weights, biases))}
    if isinstance(net, Stack):
        return by_grad
    networks = (*inner, rounded.weights, weights, biases)
    return {"JAX jit, gradient by hand": (by_hand, last, networks), **by_grad}

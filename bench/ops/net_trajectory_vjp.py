"""``net_trajectory_vjp`` against autograd of the loop and JAX, and a chain's adjoint by chains."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from vaefast import ops
from vaefast.bench.cases import Posterior
from vaefast.bench.ops import _chains as chains
from vaefast.bench.ops import _hmc as hmc
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.ops import _pixels as pixels
from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Case, Provider
from vaefast.functional.hmc import Draws, State
from vaefast.hmc.adjoint import pull_back, recorded
from vaefast.hmc.target import NetworkTarget
from vaefast.types import Network

__all__ = ["cases"]

ROWS = (1, 16, 64)
TRANSITIONS, LEAPFROGS = 50, 20  # of a chain with its adjoint, which may cost four chains
QUARTER = 25.0  # percent


def cases(place: Place) -> list[Case]:
    """One trajectory back, for the decoders of the table; a chain there and back."""
    rows = place.table(ROWS, ROWS, (3,))
    found = [
        (f"{shape} N={N}", partial(trajectory, place, shape, N))
        for shape in nets.shapes(place)
        for N in rows
    ]
    if not place.on_cpu:  # elsewhere no provider is a ceiling
        return found
    shape = nets.shapes(place)[0]
    decoders: dict[str, Callable[[int], Posterior]] = {
        str(shape): lambda N: nets.decoder(shape, N, place.device),
        pixels.PUBLISHED.name: lambda N: pixels.Given.of(place, pixels.PUBLISHED, N).posterior,
    }
    return found + [
        (f"chain, {name} N={N}", partial(chain, place, name, make, N))
        for name, make in decoders.items()
        for N in (1, 10)
    ]


def trajectory(place: Place, shape: nets.Shape, N: int) -> Benchmark:
    """Each provider returns the cotangents of the start's position and of the images."""
    z, x, net = nets.decoder(shape, N, place.device)
    L, p, up = chains.leapfrogs(place), place.normal(*z.shape, seed=1), place.normal(*z.shape)
    options = {"likelihood": "bernoulli", "step": chains.STEP, "leapfrog": L}

    def ours() -> tuple[Tensor, Tensor]:
        into_z, _, into_x = ops.net_trajectory_vjp(z, p, up, x, net, **options)
        return into_z, into_x

    found: dict[str, Provider] = {
        "vaefast": ours,
        "autograd of the loop": lambda: by_autograd(z, p, up, x, net, L),
    }
    for name, (gradient, last, networks) in chains.jax_parts(net, "ieee", z.is_cuda).items():
        run = jax_adjoint(gradient, hmc.jax_trajectory(gradient, L, last))
        found |= jx.jitted(run, z, p, up, x, *networks, name=name)
    return Benchmark(
        op="net_trajectory_vjp",
        case=f"{shape} N={N} L={L} {place.named()}",
        providers=found,
        bytes=nets.weight_bytes(net) + 4 * N * (5 * net.in_features + 2 * net.out_features),
        flop=4 * L * nets.flop(net, N),
        tolerance=1e-3,
    )


def by_autograd(
    z: Tensor, p: Tensor, up: Tensor, x: Tensor, net: Network, leapfrogs: int
) -> tuple[Tensor, ...]:
    """As one writes it: the gradient's own graph is kept and derived once more."""
    start, pixels = z.detach().requires_grad_(), x.detach().requires_grad_()

    def potential(z: Tensor, x: Tensor, net: Network, energy: bool) -> tuple[None, Tensor]:
        loss = F.binary_cross_entropy_with_logits(nets.forward(z, net), x, reduction="sum")
        total = loss + 0.5 * z.square().sum()
        return None, torch.autograd.grad(total, z, create_graph=True)[0]

    _, grad = potential(start, pixels, net, False)
    end = hmc.trajectory(start, p, grad, pixels, net, potential, leapfrogs)
    return torch.autograd.grad(end[0], (start, pixels), up)


def jax_adjoint(gradient: Callable, run: Callable) -> Callable:
    """A function of (z, p, upstream, x, *network)."""

    def pulled(z, p, up, x, *network):
        import jax

        def end(z, x):
            return run(z, p, gradient(z, x, *network), x, *network)[0]

        return jax.vjp(end, z, x)[1](up)

    return pulled


def chain(place: Place, name: str, make: Callable[[int], Posterior], N: int) -> Benchmark:
    """Recorded and pulled back; the ceiling is one run of the same chain."""
    z, x, net = make(N)
    T, L = TRANSITIONS, LEAPFROGS
    target = NetworkTarget(x, net, "bernoulli", (), None, L, "ieee", None)
    state, draws = State(z, *target.potential(z)), Draws(torch.arange(N, device=z.device))
    step, up = z.new_full((N,), chains.STEP), place.normal(*z.shape, seed=1)

    def ours() -> tuple[Tensor, Tensor]:
        return pull_back(recorded(target, state, draws, step, steps=T)[1], up)

    return Benchmark(
        op="net_trajectory_vjp",
        case=f"chain and adjoint, {name} N={N} L={L} T={T} {place.named()}",
        providers={
            "vaefast": ours,
            "one chain": lambda: target.run(state, draws, step, first_step=0, steps=T).z,
        },
        bytes=nets.weight_bytes(net) + 4 * N * (2 * net.in_features + 2 * net.out_features),
        flop=6 * T * L * nets.flop(net, N),
        ceiling="one chain",
        percent_at_least=QUARTER,
    )

"""Trajectories and chains under convolutional decoders, on a CPU."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from vaefast import ops
from vaefast.bench.ops import _chains as chains
from vaefast.bench.ops import _hmc as hmc
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.ops import _pixels as pixels
from vaefast.bench.ops import net_chain
from vaefast.bench.ops._stacks import Stack
from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Check, Provider

__all__ = ["chain", "trajectory"]

# name to the decoder's memory format, the potential, and whether the loop is compiled
WAYS = {
    "autograd": ("plain", nets.by_autograd, False),
    "autograd, channels last": ("last", nets.by_autograd, False),
    "gradient by hand, channels last": ("last", nets.by_hand, False),
    "torch.compile of the loop": ("plain", nets.by_hand, True),
    "torch.compile of the loop, channels last": ("last", nets.by_hand, True),
}


def trajectory(place: Place, decoder: pixels.Decoder, N: int) -> Benchmark:
    """Each provider returns the end: position, momentum, gradient and energy."""
    given, L = pixels.Given.of(place, decoder, N), decoder.leapfrogs[N]
    z, x, net = given.posterior
    p = place.normal(*z.shape, seed=1)
    start = z, p, nets.by_hand(z, x, given.plain)[1], x
    flop = 2 * L * nets.flop(net, N)
    product, scale = pixels.rate_of_products(flop)
    found: dict[str, Provider] = {
        "vaefast": lambda: ops.net_trajectory(
            *start, net, likelihood="bernoulli", step=chains.STEP, leapfrog=L
        ),
        **product,
        **{name: _walked(place, start, given, L, *way) for name, way in WAYS.items()},
    }
    for name, (gradient, last, networks) in chains.jax_parts(given.plain, "ieee", False).items():
        found |= jx.jitted(hmc.jax_trajectory(gradient, L, last), *start, *networks, name=name)
    return Benchmark(
        op="net_trajectory",
        case=f"{decoder.name} N={N} L={L} {place.named()}",
        providers=found,
        bytes=nets.weight_bytes(net) + 4 * N * (6 * net.in_features + net.out_features),
        flop=flop,
        scale=scale,
        **pixels.held_to(decoder, N),
    )


def _walked(
    place: Place,
    start: tuple[Tensor, ...],
    given: pixels.Given,
    L: int,
    layout: str,
    potential: Callable,
    compiled: bool,
) -> Provider:
    net = getattr(given, layout)
    walk = place.compiled(hmc.trajectory) if compiled else hmc.trajectory
    return lambda: walk(*start, net, potential, L)


def chain(place: Place, decoder: pixels.Decoder, N: int) -> Benchmark:
    """Each provider returns the last position."""
    given, T, L = pixels.Given.of(place, decoder, N), decoder.transitions[N], hmc.LEAPFROGS
    z, x, net = given.posterior
    U, grad = nets.by_hand(z, x, given.plain)
    job = net_chain.Job(place, given.posterior, "ieee", L, T, T, net_chain.CHECKED, (z, U, grad))
    flop = 2 * T * L * nets.flop(net, N)
    product, scale = pixels.rate_of_products(flop)
    found: dict[str, Provider] = {"vaefast": lambda: job.run(T), **product}
    checks: dict[str, Check] = {}
    steps = {name: chains.looped(step, job.start) for name, step in _steps(job, given).items()}
    for peers, theirs in (net_chain.drawing_peers(job, steps), net_chain.in_jax(job, given.plain)):
        found |= peers
        checks |= theirs
    return Benchmark(
        op="net_chain",
        case=f"{decoder.name} N={N} T={T} L={L} {place.named()}",
        providers=found,
        checks=checks,
        outliers=net_chain.OUTLIERS[True],
        bytes=nets.weight_bytes(net) + 4 * N * (4 * net.in_features + net.out_features),
        flop=flop,
        scale=scale,
        **pixels.held_to(decoder, N),
    )


def _steps(job: net_chain.Job, given: pixels.Given) -> dict[str, chains.Step]:
    x, whole = job.posterior.x, job.place.compiled(net_chain.in_one)

    def by_autograd(net: Stack) -> chains.Step:
        def end(z, p, grad, x, net):
            return hmc.trajectory(z, p, grad, x, net, nets.by_autograd)

        return lambda *state: hmc.transition(*state, x, net, end)

    return {
        "autograd": by_autograd(given.plain),
        "autograd, channels last": by_autograd(given.last),
        "torch.compile of the transition, channels last": lambda *state: whole(
            *state, x, given.last
        ),
    }

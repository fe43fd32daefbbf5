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

# name to the decoder's memory format, the potential, and what of it is compiled
WAYS = {
    "autograd": ("plain", nets.by_autograd, ""),
    "autograd, channels last": ("last", nets.by_autograd, ""),
    "gradient by hand, channels last": ("last", nets.by_hand, ""),
    "torch.compile of the gradient": ("plain", nets.by_hand, "gradient"),
    "torch.compile of the gradient, channels last": ("last", nets.by_hand, "gradient"),
    "torch.compile of the loop": ("plain", nets.by_hand, "loop"),
    "torch.compile of the loop, channels last": ("last", nets.by_hand, "loop"),
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
    compiled: str,
) -> Provider:
    net, walk = getattr(given, layout), hmc.trajectory
    if compiled == "gradient":
        potential = place.compiled(potential)
    if compiled == "loop":
        walk = place.compiled(walk)
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
    x = job.posterior.x
    gradient, whole = job.place.compiled(nets.by_hand), job.place.compiled(net_chain.in_one)

    def around(net: Stack, potential: Callable) -> chains.Step:
        def end(z, p, grad, x, net):
            return hmc.trajectory(z, p, grad, x, net, potential)

        return lambda *state: hmc.transition(*state, x, net, end)

    return {
        "autograd": around(given.plain, nets.by_autograd),
        "autograd, channels last": around(given.last, nets.by_autograd),
        "torch.compile of the gradient": around(given.last, gradient),
        "torch.compile of the transition": lambda *state: whole(*state, x, given.last),
    }

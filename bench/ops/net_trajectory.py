"""``net_trajectory`` against autograd, the gradient by hand, compiled loops, graphs and JAX."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from vaefast import ops
from vaefast.bench.cases import Posterior
from vaefast.bench.ops import _chains as chains
from vaefast.bench.ops import _hmc as hmc
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Case, Provider
from vaefast.types import Network

__all__ = ["cases"]


def cases(place: Place) -> list[Case]:
    """Under the decoder 32-512-512-784 2.7 MFLOP a leapfrog and chain."""
    return [
        (f"{shape} N={N} {precision}", partial(case, place, shape, N, precision))
        for shape in nets.shapes(place)
        for N in place.table(hmc.ROWS, (4096, 64), (3,))
        for precision in place.precisions
    ]


def case(place: Place, shape: nets.Shape, N: int, precision: str) -> Benchmark:
    """Each provider returns the end: position, momentum, gradient and energy."""
    posterior = nets.decoder(shape, N, place.device)
    z, x, net = posterior
    L, p = chains.leapfrogs(place), place.normal(*z.shape, seed=1)
    _, grad = nets.by_hand(z, x, net)
    options = {"likelihood": "bernoulli", "step": chains.STEP, "leapfrog": L}
    options |= {"precision": precision, "backend": place.backend("net_trajectory")}
    start = z, p, grad, x

    def products() -> list[nets.Product]:
        return nets.forward_products(net, N) + nets.backward_products(net, N)

    found: dict[str, Provider] = {
        "vaefast": lambda: ops.net_trajectory(*start, net, **options),
        **nets.ceiling(place, products, repeat=L),
    }
    found |= (
        loops(place, start, net) if place.on_cpu else graphs(place, start, posterior, precision)
    )
    for name, (gradient, last, networks) in chains.jax_parts(net, precision, z.is_cuda).items():
        found |= jx.jitted(hmc.jax_trajectory(gradient, L, last), *start, *networks, name=name)
    return Benchmark(
        op="net_trajectory",
        case=f"{shape} N={N} L={L} {place.named(precision)}",
        providers=found,
        bytes=nets.weight_bytes(net) + 4 * N * (6 * net.in_features + net.out_features),
        flop=2 * L * nets.flop(net, N),
        **place.held_to(precision),
        **hmc.asked(place, shape, N),
    )


def loops(place: Place, start: tuple[Tensor, ...], net: Network) -> dict[str, Provider]:
    """What users write, and what of it is compiled."""
    gradient, whole = place.compiled(nets.by_hand), place.compiled(hmc.trajectory)
    return {
        "autograd": lambda: hmc.trajectory(*start, net, nets.by_autograd),
        "gradient by hand": lambda: hmc.trajectory(*start, net, nets.by_hand),
        "torch.compile of the gradient": lambda: hmc.trajectory(*start, net, gradient),
        "torch.compile of the loop": lambda: whole(*start, net, nets.by_hand),
    }


def graphs(
    place: Place, start: tuple[Tensor, ...], posterior: Posterior, precision: str
) -> dict[str, Provider]:
    """At a precision, where launching costs more than a gradient."""
    z, p, grad, _ = start
    L = chains.leapfrogs(place)
    by_hand = chains.torch_leaps(posterior, precision, nets.by_hand, lambda function: function)
    compiled = chains.torch_leaps(posterior, precision, nets.by_hand, place.compiled)
    return {
        "torch.compile, CUDA graph": place.captured(
            lambda: chains.trajectory(compiled, z, p, grad, L)
        ),
        "gradient by hand": lambda: chains.trajectory(by_hand, z, p, grad, L),
    }

"""``net_potential`` against autograd, the gradient by hand, torch.compile and JAX."""

from __future__ import annotations

from functools import partial

from vaefast import ops
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.place import Place, net_at
from vaefast.bench.runner import Benchmark, Case

__all__ = ["cases"]


def cases(place: Place) -> list[Case]:
    """Energy and gradient; under the decoder 32-512-512-784 2.7 MFLOP a row."""
    return [
        (f"{shape} N={N} {precision}", partial(case, place, shape, N, precision))
        for shape in nets.shapes(place)
        for N in place.table((1, 64, 512), (65536,), (5,))
        for precision in place.precisions
    ]


def case(place: Place, shape: nets.Shape, N: int, precision: str) -> Benchmark:
    """Each provider returns the gradient and the energies."""
    z, x, net = nets.decoder(shape, N, place.device)
    options = {"likelihood": "bernoulli", "precision": precision}
    options["backend"] = place.backend("net_potential")
    peer, compiled = net_at(net, precision), place.compiled(nets.by_hand)

    def products() -> list[nets.Product]:
        return nets.forward_products(net, N) + nets.backward_products(net, N)

    return Benchmark(
        op="net_potential",
        case=f"{shape} N={N} {place.named(precision)}",
        providers={
            "vaefast": lambda: ops.net_potential(z, x, net, **options)[::-1],
            **nets.ceiling(place, products),
            "autograd": lambda: nets.by_autograd(z, x, peer)[::-1],
            "gradient by hand": lambda: nets.by_hand(z, x, peer)[::-1],
            "torch.compile": lambda: compiled(z, x, peer)[::-1],
            **jx.jitted(jx.gradient_and_energy, z, x, *jx.network(peer)),
        },
        bytes=nets.weight_bytes(net) + 4 * N * (2 * net.in_features + net.out_features),
        flop=2 * nets.flop(net, N),
        **place.held_to(precision),
    )

"""``net_forward`` against plain torch, torch.compile, a CUDA graph and JAX."""

from __future__ import annotations

from functools import partial

from vaefast import ops
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.place import Place, net_at
from vaefast.bench.runner import Benchmark, Case

__all__ = ["cases"]


def cases(place: Place) -> list[Case]:
    """The decoders of the table; 32-512-512-784 takes 1.4 MFLOP a latent."""
    return [
        (f"{shape} N={N} {precision}", partial(case, place, shape, N, precision))
        for shape in nets.shapes(place)
        for N in place.table((1, 64, 1024), (262144, 64), (5,))
        for precision in place.precisions
    ]


def case(place: Place, shape: nets.Shape, N: int, precision: str) -> Benchmark:
    """The weights, the inputs and the outputs move once."""
    z, net = place.normal(N, shape.widths[0]), nets.decoder(shape, 1, place.device).net
    peer, compiled = net_at(net, precision), place.compiled(nets.forward)
    options = {"precision": precision, "backend": place.backend("net_forward")}
    return Benchmark(
        op="net_forward",
        case=f"{shape} N={N} {place.named(precision)}",
        providers={
            "vaefast": lambda: ops.net_forward(z, net, **options),
            **nets.ceiling(place, lambda: nets.forward_products(net, N)),
            "eager": lambda: nets.forward(z, peer),
            "torch.compile": lambda: compiled(z, peer),
            **place.graphed("CUDA graph", lambda: nets.forward(z, peer)),
            **jx.jitted(jx.forward, z, *jx.network(peer)),
        },
        bytes=nets.weight_bytes(net) + 4 * N * (net.in_features + net.out_features),
        flop=nets.flop(net, N),
        **place.held_to(precision),
    )

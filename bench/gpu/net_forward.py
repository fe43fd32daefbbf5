"""``net_forward``: the decoder at 262144 latents, and at 64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vaefast import ops
from vaefast.bench.gpu import chains
from vaefast.bench.gpu.place import PRECISIONS, TOLERANCE, Place, net_at
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark

__all__ = ["cases"]


def cases(place: Place) -> list[tuple[str, Callable[[], Benchmark]]]:
    """1.4 MFLOP a latent."""
    return [
        (f"N={N} {precision}", partial(case, place, N, precision))
        for N in place.size((262144, 64), (5,))
        for precision in PRECISIONS
    ]


def case(place: Place, N: int, precision: str) -> Benchmark:
    shape = place.size(*chains.DECODER)
    z, net = place.normal(N, shape.widths[0]), nets.decoder(shape, 1, place.device).net
    peer = net_at(net, precision)
    compiled = place.compiled(nets.forward)
    options = {"precision": precision, "backend": place.backend("net_forward")}
    return Benchmark(
        op="net_forward",
        case=f"{shape} N={N} {precision} {place.device}",
        providers={
            "vaefast": lambda: ops.net_forward(z, net, **options),
            "torch.compile": lambda: compiled(z, peer),
            "CUDA graph": place.captured(lambda: nets.forward(z, peer)),
            "eager": lambda: nets.forward(z, peer),
            **jx.jitted(jx.forward, z, *jx.network(peer)),
        },
        bytes=nets.weight_bytes(net) + 4 * N * (net.in_features + net.out_features),
        flop=nets.flop(net, N),
        precision=precision,
        limit=precision,
        tolerance=TOLERANCE[precision],
    )

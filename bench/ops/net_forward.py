"""``net_forward`` against plain torch, torch.compile and JAX."""

from __future__ import annotations

from collections.abc import Iterator

from vaefast import ops
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark

ROWS = (1, 64, 1024)


def benchmarks() -> Iterator[Benchmark]:
    """The decoders of the table; the weights, the inputs and the outputs move once."""
    for shape in nets.TABLE:
        for N in ROWS:
            z, _, net = nets.decoder(shape, N)
            compiled = nets.compiled(nets.forward)
            yield Benchmark(
                op="net_forward",
                case=f"{shape} N={N} float32 {nets.DEVICE}",
                providers={
                    "vaefast": lambda z=z, net=net: ops.net_forward(z, net),
                    "matrix products alone": nets.alone(nets.forward_products(net, N)),
                    "eager": lambda z=z, net=net: nets.forward(z, net),
                    "torch.compile": lambda z=z, net=net, run=compiled: run(z, net),
                    **jx.jitted(jx.forward, z, *jx.network(net)),
                },
                bytes=nets.weight_bytes(net) + 4 * N * (net.in_features + net.out_features),
                flop=nets.flop(net, N),
                ceiling="matrix products alone",
            )

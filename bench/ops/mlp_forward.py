"""``mlp_forward`` against plain torch, torch.compile and JAX."""

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
            z, _, mlp = nets.decoder(shape, N)
            compiled = nets.compiled(nets.forward)
            yield Benchmark(
                op="mlp_forward",
                case=f"{shape} N={N} float32 {nets.DEVICE}",
                providers={
                    "vaefast": lambda z=z, mlp=mlp: ops.mlp_forward(z, mlp),
                    "matrix products alone": nets.alone(nets.forward_products(mlp, N)),
                    "eager": lambda z=z, mlp=mlp: nets.forward(z, mlp),
                    "torch.compile": lambda z=z, mlp=mlp, run=compiled: run(z, mlp),
                    **jx.jitted(jx.forward, z, *jx.network(mlp)),
                },
                bytes=nets.weight_bytes(mlp) + 4 * N * (mlp.in_features + mlp.out_features),
                flop=nets.flop(mlp, N),
                ceiling="matrix products alone",
            )

"""``mlp_forward``: the decoder at 262144 latents, and at 64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vaefast import ops
from vaefast.bench.gpu import chains
from vaefast.bench.gpu.place import PRECISIONS, TOLERANCE, Place, mlp_at
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
    z, mlp = place.normal(N, shape.widths[0]), nets.decoder(shape, 1, place.device).mlp
    peer = mlp_at(mlp, precision)
    compiled = place.compiled(nets.forward)
    options = {"precision": precision, "backend": place.backend("mlp_forward")}
    return Benchmark(
        op="mlp_forward",
        case=f"{shape} N={N} {precision} {place.device}",
        providers={
            "vaefast": lambda: ops.mlp_forward(z, mlp, **options),
            "torch.compile": lambda: compiled(z, peer),
            "CUDA graph": place.captured(lambda: nets.forward(z, peer)),
            "eager": lambda: nets.forward(z, peer),
            **jx.jitted(jx.forward, z, *jx.network(peer)),
        },
        bytes=nets.weight_bytes(mlp) + 4 * N * (mlp.in_features + mlp.out_features),
        flop=nets.flop(mlp, N),
        precision=precision,
        limit=precision,
        tolerance=TOLERANCE[precision],
    )

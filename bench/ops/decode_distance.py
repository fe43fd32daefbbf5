"""``decode_distance`` against plain torch and torch.compile, on the same draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vaefast import ops
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark
from vaefast.reference.decode_distance import latents
from vaefast.types import MLP

SIZES = ((1, 1000), (16, 100))  # [B, S]
STD, RADIUS = 0.1, 0.7


def benchmarks() -> Iterator[Benchmark]:
    """Hits of S decoded draws per input, decoder 32-512-512-784: 1.36 MFLOP a draw."""
    for B, S in SIZES:
        mean, _, mlp = nets.decoder(B)
        yield Benchmark(
            op="decode_distance",
            case=f"32-512-512-784 B={B} S={S} float32 {nets.DEVICE}",
            providers=providers(mean, mlp.with_epilogue("sigmoid"), S),
            bytes=nets.weight_bytes(mlp) + 4 * B * (2 * mlp.in_features + mlp.out_features),
            flop=nets.flop(mlp, B * S),
            ceiling="matrix products alone",
            tolerance=1.0,  # one draw may lie on the boundary to round-off
        )


def providers(mean: Tensor, mlp: MLP, S: int) -> dict[str, Callable[[], Tensor]]:
    """Each returns the hits [B]."""
    std = torch.full_like(mean, STD)
    centre = ops.mlp_forward(mean, mlp)
    index = torch.arange(len(mean), device=mean.device)
    numbers = torch.arange(S, device=mean.device)
    compiled = nets.compiled(count)

    def around(run: Callable) -> Callable[[], Tensor]:
        return lambda: run(latents(mean, std, seed=0, index=index, samples=numbers), centre, mlp)

    return {
        "vaefast": lambda: ops.decode_distance(mean, std, centre, RADIUS, mlp, samples=S),
        "matrix products alone": nets.matrix_products(mlp, len(mean) * S),
        "eager": around(count),
        "torch.compile": around(compiled),
    }


def count(z: Tensor, centre: Tensor, mlp: MLP) -> Tensor:
    image = nets.forward(z, mlp).sigmoid()
    return ((image - centre[:, None]).norm(dim=-1) <= RADIUS).sum(1)

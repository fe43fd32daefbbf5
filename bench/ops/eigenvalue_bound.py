"""``eigenvalue_bound`` against torch's batched eigensolver."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from vaefast import ops
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark
from vaefast.functional.eigenvalues import SQUARINGS

SIZES = ((64, 10), (64, 32))


def benchmarks() -> Iterator[Benchmark]:
    """Gram matrices; 2d³ FLOP a squaring, each matrix read once."""
    for B, d in SIZES:
        root = torch.randn(B, d, 2 * d, dtype=torch.float64, device=nets.DEVICE)
        A = root @ root.mT
        yield Benchmark(
            op="eigenvalue_bound",
            case=f"B={B} d={d} float64 {nets.DEVICE}",
            providers={
                "vaefast": lambda A=A: ops.eigenvalue_bound(A),
                "eigvalsh": lambda A=A: torch.linalg.eigvalsh(A)[:, -1],
            },
            bytes=8 * B * d * d,
            flop=2 * SQUARINGS * B * d**3,
            tolerance=1e-5,  # what squaring overestimates
        )

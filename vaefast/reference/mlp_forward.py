"""``mlp_forward`` in plain PyTorch: an MLP's output with its epilogue."""

from __future__ import annotations

from torch import Tensor

from vaefast.reference import layers
from vaefast.reference.rows import chunked, finite, nan_where_bad
from vaefast.types import MLP

__all__ = ["mlp_forward"]


def mlp_forward(z: Tensor, mlp: MLP) -> Tensor:
    """h ← φ_l(W_l h + b_l), layer by layer: z [N, d] to [N, D]."""

    def run(rows: slice) -> tuple[Tensor, ...]:
        return nan_where_bad(finite(z[rows]), layers.evaluate(z[rows], mlp))

    (out,) = chunked(run, len(z), layers.bytes_per_row(mlp, z))
    return out

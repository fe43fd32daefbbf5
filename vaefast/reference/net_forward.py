"""``net_forward`` in plain PyTorch: an MLP's output with its epilogue."""

from __future__ import annotations

from torch import Tensor

from vaefast.functional import layers
from vaefast.functional.rows import chunked, finite, nan_where_bad
from vaefast.types import Network

__all__ = ["net_forward"]


def net_forward(z: Tensor, net: Network) -> Tensor:
    """h ← φ_l(W_l h + b_l), layer by layer: z [N, d] to [N, D]."""

    def run(rows: slice) -> tuple[Tensor, ...]:
        return nan_where_bad(finite(z[rows]), layers.evaluate(z[rows], net))

    (out,) = chunked(run, len(z), layers.bytes_per_row(net, z))
    return out

"""``net_forward`` in plain PyTorch: a network's output with its epilogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from vaefast.functional import network
from vaefast.functional.rows import chunked, finite, nan_where_bad

if TYPE_CHECKING:
    from vaefast.ops.net_forward import Call

__all__ = ["net_forward"]


def net_forward(call: Call) -> Tensor:
    """h ← φ_l(W_l h + b_l), layer by layer: z [N, d] to [N, D]."""
    z, net = call.z, call.net

    def run(rows: slice) -> tuple[Tensor, ...]:
        return nan_where_bad(finite(z[rows]), network.evaluate(z[rows], net))

    (out,) = chunked(run, len(z), network.bytes_per_row(net, z))
    return out

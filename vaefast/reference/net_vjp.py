"""``net_vjp`` in plain PyTorch: vectors times Jacobian, K probes beside one primal pass."""

from __future__ import annotations

from torch import Tensor

from vaefast.functional import layers
from vaefast.functional.rows import chunked, finite, nan_where_bad
from vaefast.reference.net_jvp import probes, squared_norms
from vaefast.types import Network

__all__ = ["net_vjp"]


def net_vjp(x: Tensor, u: Tensor, net: Network, *, full: bool = False) -> tuple[Tensor, ...]:
    """y = net(x) [B, d] and ‖Jᵀu_k‖² [B, K] float64; with ``full`` also Jᵀu_k [B, K, D]."""

    def run(rows: slice) -> tuple[Tensor, ...]:
        tape, own = layers.forward(x[rows], net), probes(u, rows)
        products = layers.pullback(tape.beside_probes(), own, net)
        good = finite(x[rows]) & finite(own)
        results = tape.out, squared_norms(products), products
        return nan_where_bad(good, *results[: 2 + full])

    return chunked(run, len(x), u.shape[-2] * layers.bytes_per_row(net, x))

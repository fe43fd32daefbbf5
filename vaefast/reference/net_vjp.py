"""``net_vjp`` in plain PyTorch: vectors times Jacobian, K probes beside one primal pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from vaefast.functional import network
from vaefast.functional.rows import chunked, finite, nan_where_bad
from vaefast.reference.net_jvp import probes, squared_norms

if TYPE_CHECKING:
    from vaefast.ops.net_vjp import Call

__all__ = ["net_vjp"]


def net_vjp(call: Call) -> tuple[Tensor, ...]:
    """y = net(x) [B, d], ‖Jᵀu_k‖² [B, K] float64, and Jᵀu_k [B, K, D], [B, 0, D] if not full.

    Whoever has a backend's tape has y, which is then [B, 0]; the tape itself is not read.
    """
    x, u, net = call.x, call.u, call.net

    def run(rows: slice) -> tuple[Tensor, ...]:
        tape, own = network.forward(x[rows], net), probes(u, rows)
        products = network.pullback(tape.beside_probes(), own, net)
        kept = products if call.full else products[:, :0]
        good = finite(x[rows]) & finite(own)
        out = tape.out if call.tape is None else tape.out[:, :0]
        return nan_where_bad(good, out, squared_norms(products), kept)

    return chunked(run, len(x), u.shape[-2] * network.bytes_per_row(net, x))

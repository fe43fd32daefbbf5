"""``net_jvp`` in plain PyTorch: Jacobian times vectors, K probes beside one primal pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaefast.functional import network
from vaefast.functional.rows import chunked, finite, nan_where_bad

if TYPE_CHECKING:
    from vaefast.ops.net_jvp import Call

__all__ = ["net_jvp", "probes", "squared_norms"]


def net_jvp(call: Call) -> tuple[Tensor, ...]:
    """y = net(x) [B, d], ‖J v_k‖² [B, K] float64, and J v_k [B, K, d], [B, 0, d] if not full."""
    x, v, net = call.x, call.v, call.net

    def run(rows: slice) -> tuple[Tensor, ...]:
        tape, own = network.forward(x[rows], net), probes(v, rows)
        products = network.pushforward(tape.beside_probes(), own, net)
        kept = products if call.full else products[:, :0]
        good = finite(x[rows]) & finite(own)
        return nan_where_bad(good, tape.out, squared_norms(products), kept)

    return chunked(run, len(x), v.shape[-2] * network.bytes_per_row(net, x))


def probes(v: Tensor, rows: slice) -> Tensor:
    """The probes of some inputs: [1, K, n] where all inputs share them, else [b, K, n]."""
    return v.unsqueeze(0) if v.ndim == 2 else v[rows]


def squared_norms(products: Tensor) -> Tensor:
    return products.square().sum(dim=-1, dtype=torch.float64)  # [B, K]

"""``net_jvp`` in plain PyTorch: Jacobian times vectors, K probes beside one primal pass."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast.functional import layers
from vaefast.functional.rows import chunked, finite, nan_where_bad
from vaefast.types import Network

__all__ = ["net_jvp", "probes", "squared_norms"]


def net_jvp(x: Tensor, v: Tensor, net: Network, *, full: bool = False) -> tuple[Tensor, ...]:
    """y = net(x) [B, d] and ‖J v_k‖² [B, K] float64; with ``full`` also J v_k [B, K, d]."""

    def run(rows: slice) -> tuple[Tensor, ...]:
        tape, own = layers.forward(x[rows], net), probes(v, rows)
        products = layers.pushforward(tape.beside_probes(), own, net)
        good = finite(x[rows]) & finite(own)
        results = tape.out, squared_norms(products), products
        return nan_where_bad(good, *results[: 2 + full])

    return chunked(run, len(x), v.shape[-2] * layers.bytes_per_row(net, x))


def probes(v: Tensor, rows: slice) -> Tensor:
    """The probes of some inputs: [1, K, n] where all inputs share them, else [b, K, n]."""
    return v.unsqueeze(0) if v.ndim == 2 else v[rows]


def squared_norms(products: Tensor) -> Tensor:
    return products.square().sum(dim=-1, dtype=torch.float64)  # [B, K]

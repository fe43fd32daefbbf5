"""``mlp_jvp`` in plain PyTorch: Jacobian times vectors, K probes beside one primal pass."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast.reference import layers
from vaefast.reference.rows import chunked, finite, nan_where_bad
from vaefast.types import MLP

__all__ = ["mlp_jvp", "probes", "squared_norms"]


def mlp_jvp(x: Tensor, v: Tensor, mlp: MLP, *, full: bool = False) -> tuple[Tensor, ...]:
    """y = mlp(x) [B, d] and ‖J v_k‖² [B, K] float64; with ``full`` also J v_k [B, K, d]."""

    def run(rows: slice) -> tuple[Tensor, ...]:
        tape, own = layers.forward(x[rows], mlp), probes(v, rows)
        products = layers.pushforward(tape.beside_probes(), own, mlp)
        good = finite(x[rows]) & finite(own)
        results = tape.out, squared_norms(products), products
        return nan_where_bad(good, *results[: 2 + full])

    return chunked(run, len(x), v.shape[-2] * layers.bytes_per_row(mlp, x))


def probes(v: Tensor, rows: slice) -> Tensor:
    """The probes of some inputs: [1, K, n] where all inputs share them, else [b, K, n]."""
    return v.unsqueeze(0) if v.ndim == 2 else v[rows]


def squared_norms(products: Tensor) -> Tensor:
    return products.square().sum(dim=-1, dtype=torch.float64)  # [B, K]

"""``mlp_vjp`` in plain PyTorch: vectors times Jacobian, K probes beside one primal pass."""

from __future__ import annotations

from torch import Tensor

from vaefast.reference import layers
from vaefast.reference.mlp_jvp import probes, squared_norms
from vaefast.reference.rows import chunked, finite, nan_where_bad
from vaefast.types import MLP

__all__ = ["mlp_vjp"]


def mlp_vjp(x: Tensor, u: Tensor, mlp: MLP, *, full: bool = False) -> tuple[Tensor, ...]:
    """y = mlp(x) [B, d] and ‖Jᵀu_k‖² [B, K] float64; with ``full`` also Jᵀu_k [B, K, D]."""

    def run(rows: slice) -> tuple[Tensor, ...]:
        tape, own = layers.forward(x[rows], mlp), probes(u, rows)
        products = layers.pullback(tape.beside_probes(), own, mlp)
        good = finite(x[rows]) & finite(own)
        results = tape.out, squared_norms(products), products
        return nan_where_bad(good, *results[: 2 + full])

    return chunked(run, len(x), u.shape[-2] * layers.bytes_per_row(mlp, x))

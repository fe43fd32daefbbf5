"""``net_jacobian_gram`` in plain PyTorch: J Jᵀ without touching the input dimension per row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaefast.functional import network
from vaefast.functional.rows import chunked, finite, nan_where_bad, part
from vaefast.types import Network

if TYPE_CHECKING:
    from vaefast.ops.net_jacobian_gram import Call

__all__ = ["first_factor", "net_jacobian_gram"]


def net_jacobian_gram(call: Call) -> Tensor:
    """S J Jᵀ S [B, d, d] with S = diag(inv_std) (I where None), at each x [B, D].

    J = M W₁ with M [d, H₁] the Jacobian of all that follows the first product; with the
    triangular factor W₁ᵀ = Q R it is (M Rᵀ)(M Rᵀ)ᵀ. Where the first layer is a convolution, or the
    input is added anywhere, the rows of J are pulled back whole.
    """
    x, net = call.x, call.net
    factor = first_factor(net.weights[0]) if _starts_with_a_product(net) else None
    basis = torch.eye(net.out_features, dtype=x.dtype, device=x.device).unsqueeze(0)

    def run(rows: slice) -> tuple[Tensor, ...]:
        tape, scale = network.forward(x[rows], net).beside_probes(), part(call.inv_std, rows)
        if factor is None:
            root = network.pullback(tape, basis, net)  # [b, d, D]
        else:
            root = network.pull_to_first(tape, basis, net) @ factor  # [b, d, min(D, H₁)]
        root = root if scale is None else scale.unsqueeze(-1) * root
        return nan_where_bad(finite(x[rows], scale), root @ root.mT)

    (gram,) = chunked(run, len(x), net.out_features * network.bytes_per_row(net, x))
    return gram


def _starts_with_a_product(net: Network) -> bool:
    """Whether the input enters in the first layer's matrix and nowhere else."""
    parsed = net.parsed()
    return parsed[0].kind == "linear" and all(layer.residual != -1 for layer in parsed)


def first_factor(weight: Tensor) -> Tensor:
    """F with F Fᵀ = W Wᵀ and at most H columns: W itself [H, D], or Rᵀ of Wᵀ = Q R if D > H.

    A weight that is being differentiated stands as it is: QR has no derivative at low rank.
    """
    if weight.shape[1] <= weight.shape[0] or (torch.is_grad_enabled() and weight.requires_grad):
        return weight
    return torch.linalg.qr(weight.double().mT, mode="r").R.mT.to(weight.dtype)

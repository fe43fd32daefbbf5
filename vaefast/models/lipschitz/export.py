"""From orthonormalised layers to torch's own, with weights that a computed bound vouches for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaefast.models.lipschitz.layers import BjorckLinear, bjorck
from vaefast.models.lipschitz.norms import matrix_bound, matrix_estimate

__all__ = ["orthonormalised", "plain"]

ATTEMPTS = 8
SETTLED = 1e-14  # change of an entry, in float64
ROOM = 1.0 - 2.0**-22  # what rounding to float32 mostly adds


def orthonormalised(layer: BjorckLinear, iterations: int, scale: float = 1.0) -> Tensor:
    """scale·Björck(W) [out, in] in the layer's dtype, of norm ≤ scale by a computed bound.

    Raises:
        ValueError: the weight is not finite, or none that is small enough was found.
    """
    weight = layer.weight.detach().double()
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("a layer's weight is not finite; train again with a smaller lr")
    weight = scale * ROOM * _converged(_within_reach(weight), layer.order, iterations)
    for _ in range(ATTEMPTS):
        rounded = weight.to(layer.weight.dtype)
        bound = matrix_bound(rounded)
        if bound <= scale:
            return rounded
        weight = weight * (scale / bound * ROOM)
    raise ValueError(f"no weight of spectral norm {scale:g} was found, the last had {bound:g}")


def plain(network: nn.Module, iterations: int) -> nn.Sequential:
    """The network with ``nn.Linear`` in place of its layers; everything else is shared."""
    assert isinstance(network, nn.Sequential)
    return nn.Sequential(
        *(_linear(m, iterations) if isinstance(m, BjorckLinear) else m for m in network)
    )


def _linear(layer: BjorckLinear, iterations: int) -> nn.Linear:
    scale = float(layer.scale)
    weight = orthonormalised(layer, iterations, scale)
    bias = (scale * layer.bias.detach().double()).to(weight.dtype)
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
    return linear


def _converged(weight: Tensor, order: int, iterations: int) -> Tensor:
    """At most that many iterations, and no more than change anything."""
    for _ in range(iterations):
        last, weight = weight, bjorck(weight, order, 1)
        if float((weight - last).abs().max()) < SETTLED:
            break
    return weight


def _within_reach(weight: Tensor) -> Tensor:
    """The weight, divided by its norm where Björck's iteration would not converge from it."""
    norm = matrix_estimate(weight)
    return weight / norm if norm > 1.5 else weight

"""From layers with a constant to torch's own, with weights that a computed bound vouches for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaefast.models.lipschitz.layers import BjorckLinear, Scaled, bjorck, within_reach
from vaefast.models.lipschitz.norms import convolution_bound, matrix_bound

__all__ = ["as_torch_layers", "enforce_constant"]

ATTEMPTS = 8
CONVERGED = 1e-14  # change of an entry, in float64
ROOM = 1.0 - 2.0**-22  # what rounding to float32 mostly adds


def as_torch_layers(network: nn.Module, iterations: int) -> nn.Sequential:
    """The network with torch's layers in place of ours; everything else is shared.

    Raises:
        ValueError: a weight is not finite.
    """
    assert isinstance(network, nn.Sequential)
    return nn.Sequential(
        *(_as_torch_layer(m, iterations) if isinstance(m, Scaled) else m for m in network)
    )


def enforce_constant(layer: Scaled, iterations: int) -> None:
    """Make the layer's own map at most ``scale``-Lipschitz by a computed bound, in place."""
    if isinstance(layer, BjorckLinear):
        weight = _converged(within_reach(_finite(layer.weight)), layer.order, iterations)
        layer.weight.copy_(_below(ROOM * weight, 1.0, layer.weight.dtype, matrix_bound))
        return
    inner, bound = _convolution(layer)
    norm = bound(_finite(inner.weight))
    if norm > 1.0:
        layer.scale.div_(norm / ROOM)


def _as_torch_layer(layer: Scaled, iterations: int) -> nn.Module:
    scale = float(layer.scale)
    if isinstance(layer, BjorckLinear):
        weight = _converged(within_reach(_finite(layer.weight)), layer.order, iterations)
        bias, bound = layer.bias, matrix_bound
        made: Any = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    else:
        inner, bound = _convolution(layer)
        weight, bias = _finite(inner.weight), inner.bias
        kind = nn.ConvTranspose2d if isinstance(inner, nn.ConvTranspose2d) else nn.Conv2d
        sizes = inner.in_channels, inner.out_channels, inner.kernel_size
        made = kind(*sizes, stride=inner.stride, padding=inner.padding, device="meta")
    made.weight = nn.Parameter(_below(scale * ROOM * weight, scale, bias.dtype, bound))
    made.bias = nn.Parameter((scale * bias.detach().double()).to(bias.dtype))
    return made


def _convolution(layer: Scaled) -> tuple[Any, Callable[[Tensor], float]]:
    """The convolution inside, and the bound of its weight."""
    inner: Any = layer.inner
    options = inner.stride, inner.dilation, inner.groups
    return inner, lambda weight: convolution_bound(weight, *options)


def _below(
    weight: Tensor, limit: float, dtype: torch.dtype, bound: Callable[[Tensor], float]
) -> Tensor:
    """The weight, rounded to the dtype, and made smaller where its norm exceeds the limit."""
    for _ in range(ATTEMPTS):
        rounded = weight.to(dtype)
        norm = bound(rounded)
        if norm <= limit:
            return rounded
        weight = weight * (limit / norm * ROOM)
    raise ValueError(f"no weight of spectral norm {limit:g} was found, the last had {norm:g}")


def _finite(weight: Tensor) -> Tensor:
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("a layer's weight is not finite; train again with a smaller lr")
    return weight.detach().double()


def _converged(weight: Tensor, order: int, iterations: int) -> Tensor:
    """At most that many of Björck's iterations, and no more than change anything."""
    for _ in range(iterations):
        last, weight = weight, bjorck(weight, order, 1)
        if float((weight - last).abs().max()) < CONVERGED:
            break
    return weight

"""Layers whose Lipschitz constant is set: orthonormalised linear maps, and the ball of σ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaefast.models.activations import MaxMin
from vaefast.runtime.defaults import default_device

__all__ = [
    "BallOfStd",
    "BjorckLinear",
    "LogVariance",
    "Scaled",
    "bjorck",
    "initialise",
    "layers_of",
    "network",
    "set_constant",
    "within_reach",
]

REACH = 1.3  # singular values up to which all orders converge
SERIES = (1.0, 0.5, 0.375, 0.3125)  # of (1 − q)^(−½)


def bjorck(weight: Tensor, order: int = 1, iterations: int = 3) -> Tensor:
    """The matrix with its singular values driven to 1, differentiable in it.

        W ← W (I + ½Q + ⅜Q² + 5/16 Q³ up to Q^order),   Q = I − WᵀW

    Order 1 maps a singular value s to 1.5s − 0.5s³: at most 1 wherever 0 ≤ s ≤ 2, so that one
    iteration makes such a matrix 1-Lipschitz even before it has converged; order 3 neither
    overshoots, order 2 does (f(1.2) = 1.023). It converges from 0 < s < √3 (order 1).

    Args:
        weight: [out, in], floating; a wide matrix gets orthonormal rows, a tall one columns.
        order: 1 to 3.
        iterations: at least 0.

    Returns:
        [out, in].

    Source: Björck, Bowie 1971; Anil, Lucas, Grosse, ICML 2019; mathematics.md 4.5.
    """
    wide = weight.shape[0] < weight.shape[1]
    w = weight.mT if wide else weight
    one = torch.eye(w.shape[1], dtype=w.dtype, device=w.device)
    for _ in range(iterations):
        q = one - w.mT @ w
        factor = SERIES[order] * q
        for coefficient in reversed(SERIES[1:order]):
            factor = (factor + coefficient * one) @ q
        w = w + w @ factor
    return w.mT if wide else w


def within_reach(weight: Tensor) -> Tensor:
    """The matrix, divided by a number where a singular value may be above 1.3.

    From there Björck's iteration would not converge, and soon not be finite. With k columns or
    rows, ‖W‖₂ ≤ ‖(WᵀW)⁸‖_F^(1/16) ≤ k^(1/32)·‖W‖₂, so an orthonormal W stays as it is.
    """
    with torch.no_grad():
        w = weight.mT if weight.shape[0] < weight.shape[1] else weight
        size = torch.linalg.vector_norm(w).clamp_min(torch.finfo(w.dtype).tiny)
        power = (w / size).mT @ (w / size)
        for _ in range(3):
            power = power @ power
        bound = size * torch.linalg.vector_norm(power).pow(1.0 / 16.0)
        shrink = (bound / REACH).clamp_min(1.0)
    return weight / shrink


def _number(value: float) -> Tensor:
    """[] of the default dtype, on the default device."""
    return torch.full((), value, device=default_device(), dtype=torch.get_default_dtype())


class Scaled(nn.Module):
    """A layer with a Lipschitz constant: ``scale``, a buffer, so that it is saved."""

    scale: Tensor

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.register_buffer("scale", _number(scale))


class BjorckLinear(Scaled):
    """scale·(Björck(W) x + b): a linear layer with singular values near ``scale``.

    Args:
        inputs, outputs: widths.
        scale: Lipschitz constant of the layer, > 0.
        order, iterations: of :func:`bjorck` in every forward pass.
    """

    def __init__(
        self, inputs: int, outputs: int, scale: float, order: int = 1, iterations: int = 3
    ) -> None:
        super().__init__(scale)
        self.order, self.iterations = order, iterations
        where: dict[str, Any] = {"device": default_device(), "dtype": torch.get_default_dtype()}
        self.weight = nn.Parameter(torch.empty(outputs, inputs, **where))
        self.bias = nn.Parameter(torch.zeros(outputs, **where))

    @property
    def in_features(self) -> int:
        return self.weight.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        weight = bjorck(within_reach(self.weight), self.order, self.iterations)
        return self.scale * F.linear(x, weight, self.bias)

    def extra_repr(self) -> str:
        sizes = f"{self.weight.shape[1]}, {self.weight.shape[0]}"
        return f"{sizes}, order={self.order}, iterations={self.iterations}"


class BallOfStd(nn.Module):
    """σ ↦ σ·min(1, t/‖σ‖₂): the projection of σ [n, d] onto the ball of radius t, 1-Lipschitz."""

    radius: Tensor

    def __init__(self, radius: float) -> None:
        super().__init__()
        self.register_buffer("radius", _number(radius))

    def forward(self, std: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(std, dim=-1, keepdim=True)
        return std * (self.radius / length.clamp_min(torch.finfo(std.dtype).tiny)).clamp_max(1.0)


class LogVariance(nn.Module):
    """σ ↦ log σ², as a VAE takes it; lowering reads σ before the logarithm."""

    def forward(self, std: Tensor) -> Tensor:
        return 2.0 * torch.log(std)


def initialise(layer: BjorckLinear, generator: torch.Generator) -> None:
    """Random orthonormal rows or columns, and a uniform bias as ``nn.Linear`` has it."""
    weight, bias = (torch.empty_like(p, device="cpu") for p in (layer.weight, layer.bias))
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    nn.init.orthogonal_(layer.weight, generator=generator)
    bound = 1.0 / math.sqrt(layer.in_features)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def network(widths: Sequence[int], order: int, iterations: int) -> list[nn.Module]:
    """Linear layers between the widths, MaxMin between these; of constant 1 until it is set."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [BjorckLinear(before, after, 1.0, order, iterations), MaxMin()]
    return layers[:-1]


def layers_of(module: nn.Module) -> list[Scaled]:
    """Its layers that have a constant, in their order."""
    return [layer for layer in module.modules() if isinstance(layer, Scaled)]


def set_constant(module: nn.Module, constant: float) -> None:
    """Give each of n layers the n-th root of the constant, not rounded above it."""
    layers = layers_of(module)
    for layer in layers:
        exact = constant ** (1.0 / len(layers))
        scale = layer.scale.fill_(exact)
        if scale.is_meta:
            continue
        if scale.double() > exact:
            scale.copy_(torch.nextafter(scale, torch.zeros_like(scale)))

"""The activations of an MLP: value and two derivatives, one table.

An activation's Jacobian is symmetric (diagonal, or the pair permutation of MaxMin), so one
function serves the forward and the reverse direction: it multiplies a tangent or a cotangent.
Slopes come from the pre-activation: 1 − h² or h(1 − h) would cancel where a unit saturates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ACTIVATIONS", "Activation", "named", "parse"]


class Activation(NamedTuple):
    """One activation h = φ(a).

    Args:
        value: maps pre-activations a to h, same shape.
        multiply: (a, h, t) ↦ φ'(a)·t, where h = φ(a) and t broadcasts against a.
        second: (a, h) ↦ φ''(a), 0 at kinks; None where φ is piecewise linear.
    """

    value: Callable[[Tensor], Tensor]
    multiply: Callable[[Tensor, Tensor, Tensor], Tensor]
    second: Callable[[Tensor, Tensor], Tensor] | None = None


def parse(names: Sequence[str]) -> tuple[Activation, ...]:
    """The activations of ``["tanh", "leaky_relu:0.01", "sigmoid"]``, one per layer.

    Raises:
        ValueError: an unknown name, a parameter that is missing, malformed or not taken, or
            clamp's ``low`` above its ``high``.
    """
    return tuple(map(_parse_one, names))


def named(text: str) -> tuple[str, tuple[float, float]]:
    """Name and parameters of a valid ``name[:p1[:p2]]``; zeros for what is not given."""
    name, *given = text.strip().split(":")
    first, second = [*map(float, given), 0.0, 0.0][:2]
    return name, (first, second)


@lru_cache(maxsize=256)
def _parse_one(text: str) -> Activation:
    name, *given = text.strip().split(":")
    if name not in ACTIVATIONS:
        allowed = ", ".join(sorted(ACTIVATIONS))
        raise ValueError(f"activations must be among {allowed}, got {name!r}")
    wanted = PARAMETERS.get(name, ())
    if given and not wanted:
        raise ValueError(f"activation {name!r} takes no parameter, got {text!r}")
    try:
        if len(given) != len(wanted):
            raise ValueError
        return ACTIVATIONS[name](*map(float, given))
    except ValueError:
        form = ":".join([name, *(f"<{parameter}>" for parameter in wanted)])
        raise ValueError(f"activation {name!r} must be written {form}, got {text!r}") from None


def _elementwise(
    value: Callable[[Tensor], Tensor],
    slope: Callable[[Tensor, Tensor], Tensor],
    second: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Activation:
    return Activation(value, lambda a, h, t: t * slope(a, h), second)


def _identity() -> Activation:
    return Activation(lambda a: a, lambda a, h, t: t)


def _relu() -> Activation:
    return _elementwise(F.relu, lambda a, h: a > 0)  # derivative 0 at the kink


def _leaky_relu(slope: float) -> Activation:
    return _elementwise(
        lambda a: F.leaky_relu(a, slope), lambda a, h: slope + (1.0 - slope) * (a > 0).to(a.dtype)
    )


def _elu(alpha: float) -> Activation:
    def slope(a: Tensor, h: Tensor) -> Tensor:
        return torch.where(a > 0, torch.ones_like(a), alpha * torch.exp(a.clamp(max=0.0)))

    def second(a: Tensor, h: Tensor) -> Tensor:
        return torch.where(a > 0, torch.zeros_like(a), slope(a, h))

    return _elementwise(lambda a: F.elu(a, alpha), slope, second)


def _tanh() -> Activation:
    def slope(a: Tensor, h: Tensor) -> Tensor:
        s = torch.exp(-2.0 * a.abs())
        return 4.0 * s / (1.0 + s) ** 2

    return _elementwise(torch.tanh, slope, lambda a, h: -2.0 * h * slope(a, h))


def _sigmoid() -> Activation:
    def slope(a: Tensor, h: Tensor) -> Tensor:
        return torch.sigmoid(a) * torch.sigmoid(-a)

    return _elementwise(torch.sigmoid, slope, lambda a, h: -torch.tanh(0.5 * a) * slope(a, h))


def _softplus() -> Activation:
    return _elementwise(
        lambda a: -F.logsigmoid(-a),
        lambda a, h: torch.sigmoid(a),
        lambda a, h: torch.sigmoid(a) * torch.sigmoid(-a),
    )


def _silu() -> Activation:
    def slope(a: Tensor, h: Tensor) -> Tensor:
        return torch.sigmoid(a) * (1.0 + a * torch.sigmoid(-a))

    def second(a: Tensor, h: Tensor) -> Tensor:
        return torch.sigmoid(a) * torch.sigmoid(-a) * (2.0 - a * torch.tanh(0.5 * a))

    return _elementwise(F.silu, slope, second)


def _gelu() -> Activation:
    def density(a: Tensor) -> Tensor:
        return torch.exp(-0.5 * a * a) / math.sqrt(2.0 * math.pi)

    def slope(a: Tensor, h: Tensor) -> Tensor:
        return 0.5 * torch.erfc(-a / math.sqrt(2.0)) + a * density(a)

    def second(a: Tensor, h: Tensor) -> Tensor:
        a = a.clamp(-64.0, 64.0)  # the density is 0 beyond, and a² would overflow
        return (2.0 - a * a) * density(a)

    return _elementwise(F.gelu, slope, second)


def _gelu_tanh() -> Activation:
    c, k = math.sqrt(2.0 / math.pi), 0.044715

    def slope(a: Tensor, h: Tensor) -> Tensor:
        u = 2.0 * c * (a + k * a**3)
        s = torch.sigmoid(u)  # φ(a) = a·s
        return s * (1.0 + a * torch.sigmoid(-u) * 2.0 * c * (1.0 + 3.0 * k * a * a))

    def second(a: Tensor, h: Tensor) -> Tensor:
        a = a.clamp(-64.0, 64.0)  # φ'' is 0 beyond, and u³ would overflow
        u, rate = 2.0 * c * (a + k * a**3), 2.0 * c * (1.0 + 3.0 * k * a * a)
        curve = 2.0 * rate + a * (12.0 * c * k * a - torch.tanh(0.5 * u) * rate * rate)
        return torch.sigmoid(u) * torch.sigmoid(-u) * curve

    return _elementwise(lambda a: F.gelu(a, approximate="tanh"), slope, second)


def _exp_half() -> Activation:
    return _elementwise(lambda a: torch.exp(0.5 * a), lambda a, h: 0.5 * h, lambda a, h: 0.25 * h)


def _maxmin() -> Activation:
    """GroupSort 2: each adjacent pair (a₂ᵢ, a₂ᵢ₊₁) becomes (max, min); a tie keeps its order."""

    def swap(a: Tensor, t: Tensor) -> Tensor:
        pairs, tangents = a.unflatten(-1, (-1, 2)), t.unflatten(-1, (-1, 2))
        ordered = (pairs[..., 0] >= pairs[..., 1]).unsqueeze(-1)
        return torch.where(ordered, tangents, tangents.flip(-1)).flatten(-2)

    return Activation(lambda a: swap(a, a), lambda a, h, t: swap(a, t))


def _clamp(low: float, high: float) -> Activation:
    """min(max(a, low), high), with slope 1 at both ends too, as torch.clamp has."""
    if not low <= high:
        raise ValueError
    return _elementwise(lambda a: a.clamp(low, high), lambda a, h: (a >= low) & (a <= high))


def _hardswish() -> Activation:
    def slope(a: Tensor, h: Tensor) -> Tensor:
        inside = torch.where(a <= -3.0, torch.zeros_like(a), (2.0 * a + 3.0) / 6.0)
        return torch.where(a >= 3.0, torch.ones_like(a), inside)

    return _elementwise(F.hardswish, slope, lambda a, h: (a.abs() < 3.0).to(a.dtype) / 3.0)


def _mish() -> Activation:
    def slope(a: Tensor, h: Tensor) -> Tensor:
        t = torch.tanh(-F.logsigmoid(-a))  # φ(a) = a·t
        s = torch.sigmoid(-a) ** 2  # exp(−2·softplus a): 1 − t² = 4s/(1 + s)²
        return t + a * torch.sigmoid(a) * 4.0 * s / (1.0 + s) ** 2

    def second(a: Tensor, h: Tensor) -> Tensor:
        t, s = torch.tanh(-F.logsigmoid(-a)), torch.sigmoid(-a) ** 2
        other = torch.sigmoid(-a)
        rate = torch.sigmoid(a) * 4.0 * s / (1.0 + s) ** 2  # dt/da
        return rate * (2.0 + a * (other - 2.0 * t * torch.sigmoid(a)))

    return _elementwise(F.mish, slope, second)


def _selu() -> Activation:
    def slope(a: Tensor, h: Tensor) -> Tensor:
        below = SELU_SCALE * SELU_ALPHA * torch.exp(a.clamp(max=0.0))
        return torch.where(a > 0, torch.full_like(a, SELU_SCALE), below)

    def second(a: Tensor, h: Tensor) -> Tensor:
        return torch.where(a > 0, torch.zeros_like(a), slope(a, h))

    return _elementwise(F.selu, slope, second)


SELU_SCALE, SELU_ALPHA = 1.0507009873554804934, 1.6732632423543772848
PARAMETERS = {"leaky_relu": ("slope",), "elu": ("alpha",), "clamp": ("low", "high")}
ACTIVATIONS: dict[str, Callable[..., Activation]] = {
    "identity": _identity,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "exp_half": _exp_half,
    "maxmin": _maxmin,
    "clamp": _clamp,
    "hardswish": _hardswish,
    "mish": _mish,
    "selu": _selu,
}

"""Quotients (f(a+u) − f(a))/u that do not cancel, with f'(a) at u = 0."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "cubic",
    "cubic_rate",
    "density",
    "exponential",
    "logarithmic",
    "logarithmic_rate",
    "normal",
    "of_gate",
    "sigmoid",
    "tanh",
]


def exponential(a: Tensor, u: Tensor) -> Tensor:
    """The secant of exp, by the larger of both ends: nothing overflows that has a value."""
    top, width = torch.maximum(a, a + u), u.abs()
    return top.exp() * torch.where(width == 0, 1.0, -torch.expm1(-width) / width)


def tanh(a: Tensor, u: Tensor) -> Tensor:
    """sinh(u)/u / (cosh a · cosh(a+u)), the exponents subtracted before they are taken."""
    b, width = a + u, u.abs()
    x, y = a.abs(), b.abs()
    exponent = torch.where((a > 0) == (b > 0), torch.minimum(x, y), 0.0)
    halves = (1.0 + torch.exp(-2.0 * x)) * (1.0 + torch.exp(-2.0 * y))
    rise = torch.where(width == 0, 2.0, -torch.expm1(-2.0 * width) / width)
    return 2.0 * torch.exp(-2.0 * exponent) * rise / halves


def sigmoid(a: Tensor, u: Tensor) -> Tensor:
    return 0.25 * tanh(0.5 * a, 0.5 * u)


# nodes and weights of Gauss and Legendre on [0, 1]
NODES = (0.03376524289842399, 0.16939530676686775, 0.3806904069584015)
WEIGHTS = (0.08566224618958517, 0.1803807865240693, 0.23395696728634552)
NEAR = 0.25  # intervals on which six nodes leave no error


def of_gate(gate: Callable, rate: Callable, a: Tensor, u: Tensor) -> Tensor:
    """The secant of a·gate(a), gate(b) + a·(gate(b) − gate(a))/u; near u = 0 from gate' = rate."""
    mean = torch.zeros_like(a)
    for node, weight in zip(NODES, WEIGHTS):
        mean += weight * (rate(a + node * u) + rate(a + (1.0 - node) * u))
    b = a + u
    top = gate(b)
    return top + a * torch.where(u.abs() <= NEAR, mean, (top - gate(a)) / u)


def normal(a: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-a / math.sqrt(2.0))


def density(a: Tensor) -> Tensor:
    return torch.exp(-0.5 * a * a) / math.sqrt(2.0 * math.pi)


C, K = math.sqrt(2.0 / math.pi), 0.044715


def cubic(a: Tensor) -> Tensor:
    a = a.clamp(-1e3, 1e3)  # beyond, the gate is shut or open
    return torch.sigmoid(2.0 * C * (a + K * a**3))


def cubic_rate(a: Tensor) -> Tensor:
    a = a.clamp(-1e3, 1e3)
    s, w = cubic(a), 2.0 * C * (a + K * a**3)
    return s * torch.sigmoid(-w) * 2.0 * C * (1.0 + 3.0 * K * a * a)


def logarithmic(a: Tensor) -> Tensor:
    return torch.tanh(torch.nn.functional.softplus(a))


def logarithmic_rate(a: Tensor) -> Tensor:
    s = torch.sigmoid(-a) ** 2
    return torch.sigmoid(a) * 4.0 * s / (1.0 + s) ** 2

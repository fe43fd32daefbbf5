"""Secants of the activations, (φ(a+u) − φ(a))/u, computed without a quotient that cancels.

What a bound of a network's displacement needs of an activation: its secants to a few units in the
last place, and where its slope stops being monotone. ``vaefast/functional/relaxations.py`` turns
that into ranges over an interval of u.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vaefast.functional import quotients
from vaefast.functional.activations import SELU_ALPHA, SELU_SCALE, named, parse

__all__ = ["Curve", "curve"]

ULP = 2.0**-52


class Curve(NamedTuple):
    """One activation φ as bounds see it; for MaxMin the relu of a pair's difference.

    Args:
        value: φ, elementwise.
        slope: φ', at a kink that of either side.
        secant: (a, u) ↦ (φ(a+u) − φ(a))/u, φ'(a) at u = 0; absolute error below ``error``.
        least, most: infimum and supremum of φ'; ``most`` is None where there is none.
        turns: points between which φ' is monotone, ascending; each with the slope (of the side
            where it is more extreme) there.
        curvature: sup |φ''|, None where φ' jumps.
        stationary: c ↦ the kinks of φ and the points where φ' = c, NaN where there is none; None
            where that has no closed form.
        error: see ``secant``.
        straight: piecewise linear, so that two equal secants mean that it is linear between them.
        pairs: the unit is the first of two adjacent features minus the second.
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    secant: Callable[[Tensor, Tensor], Tensor]
    least: float
    most: float | None
    turns: tuple[tuple[float, float], ...] = ()
    curvature: float | None = None
    stationary: Callable[[Tensor], tuple[Tensor, ...]] | None = None
    error: float = 8.0 * ULP
    straight: bool = False
    pairs: bool = False


@lru_cache(maxsize=256)
def curve(text: str) -> Curve | None:
    """The curve of an activation, by its name with parameters; None for the identity.

    Raises:
        ValueError: an activation without a rule, or parameters for which there is none.
    """
    name, parameters = named(text)
    if name == "identity":
        return None
    if name not in CURVES or (name == "elu" and parameters[0] < 0):
        known = ", ".join(["identity", *CURVES])
        raise ValueError(f"activation {text!r} has no range of secants; there is one for {known}")
    (activation,) = parse([text if name != "maxmin" else "relu"])

    def slope(a: Tensor) -> Tensor:
        return activation.multiply(a, activation.value(a), torch.ones_like(a))

    return CURVES[name](activation.value, slope, *parameters)


def _kinks(*points: float) -> Callable[[Tensor], tuple[Tensor, ...]]:
    return lambda c: tuple(torch.full_like(c, point) for point in points)


def _relu(value: Callable, slope: Callable, low: float, _: float, pairs: bool = False) -> Curve:
    """Also the leaky one: slope ``low`` below 0."""

    def secant(a: Tensor, u: Tensor) -> Tensor:
        b = a + u
        above = torch.maximum(a, b).clamp(min=0.0) - torch.minimum(a, b).clamp(min=0.0)
        crossing = (a > 0) != (b > 0)
        share = torch.where(crossing, above / u.abs(), ((a > 0) | (b > 0)).to(a.dtype))
        return low + (1.0 - low) * share

    ends = min(low, 1.0), max(low, 1.0)
    return Curve(value, slope, secant, *ends, stationary=_kinks(0.0), straight=True, pairs=pairs)


def _clamp(value: Callable, slope: Callable, low: float, high: float) -> Curve:
    def secant(a: Tensor, u: Tensor) -> Tensor:
        b = a + u
        apart = (value(b) - value(a)) / u
        inside = (torch.minimum(a, b) >= low) & (torch.maximum(a, b) <= high)
        return torch.where(inside, 1.0, torch.where(u == 0, slope(a), apart)).clamp(0.0, 1.0)

    middle = min(max(0.0, low), high)
    return Curve(
        value,
        slope,
        secant,
        0.0,
        1.0,
        turns=((middle, 1.0),),
        stationary=_kinks(low, high),
        straight=True,
    )


def _elu(value: Callable, slope: Callable, alpha: float, scale: float) -> Curve:
    scale = scale or 1.0

    def secant(a: Tensor, u: Tensor) -> Tensor:
        b = a + u
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        both = (high.clamp(min=0.0) - alpha * torch.expm1(low.clamp(max=0.0))) / u.abs()
        below = alpha * quotients.exponential(a.clamp(max=0.0), torch.where(high > 0, 0.0, u))
        return scale * torch.where(low >= 0, 1.0, torch.where(high > 0, both, below))

    def stationary(c: Tensor) -> tuple[Tensor, ...]:
        return torch.zeros_like(c), (c / (scale * alpha)).log().clamp(max=0.0)

    return Curve(
        value,
        slope,
        secant,
        0.0,
        scale * max(alpha, 1.0),
        turns=((0.0, scale * alpha),) if alpha > 1.0 else (),
        curvature=1.0 if alpha == scale == 1.0 else None,
        stationary=stationary,
    )


def _selu(value: Callable, slope: Callable, *_: float) -> Curve:
    return _elu(value, slope, SELU_ALPHA, SELU_SCALE)


def _exp_half(value: Callable, slope: Callable, *_: float) -> Curve:
    return Curve(
        value,
        slope,
        lambda a, u: 0.5 * quotients.exponential(0.5 * a, 0.5 * u),
        0.0,
        None,
        stationary=lambda c: (2.0 * (2.0 * c).log(),),
        error=1024.0 * ULP,  # e^b errs by b's last place, b < 710
    )


def _bell(c: Tensor) -> Tensor:
    """v ≥ 0 with 1/cosh²(v) = c."""
    return ((1.0 + (1.0 - c).sqrt()) / c.sqrt()).log()


def _tanh(value: Callable, slope: Callable, *_: float) -> Curve:
    def stationary(c: Tensor) -> tuple[Tensor, ...]:
        v = _bell(c)
        return v, -v

    turns = ((0.0, 1.0),)
    return Curve(value, slope, quotients.tanh, 0.0, 1.0, turns, 0.7699, stationary)


def _sigmoid(value: Callable, slope: Callable, *_: float) -> Curve:
    def stationary(c: Tensor) -> tuple[Tensor, ...]:
        v = 2.0 * _bell(4.0 * c)
        return v, -v

    turns = ((0.0, 0.25),)
    return Curve(value, slope, quotients.sigmoid, 0.0, 0.25, turns, 0.0963, stationary)


def _softplus(value: Callable, slope: Callable, *_: float) -> Curve:
    def secant(a: Tensor, u: Tensor) -> Tensor:
        """−log(σ(−b) + σ(b)e^−w)/w from the upper end b, w = |u|."""
        b, width = torch.maximum(a, a + u), u.abs()
        small = torch.sigmoid(b) * torch.expm1(-width)
        far = torch.logaddexp(F.logsigmoid(-b), F.logsigmoid(b) - width)
        rise = torch.where(small > -0.5, torch.log1p(small), far)
        return torch.where(width == 0, slope(a), -rise / width)

    def stationary(c: Tensor) -> tuple[Tensor, ...]:
        return (c.log() - torch.log1p(-c),)

    return Curve(value, slope, secant, 0.0, 1.0, curvature=0.25, stationary=stationary)


def _silu(value: Callable, slope: Callable, *_: float) -> Curve:
    def secant(a: Tensor, u: Tensor) -> Tensor:
        return torch.sigmoid(a + u) + a * quotients.sigmoid(a, u)

    turn, most = 2.3993571998642737, 1.0998393201288654
    turns = ((-turn, 1.0 - most), (turn, most))
    return Curve(value, slope, secant, 1.0 - most, most, turns, 0.5, error=32.0 * ULP)


def _gated(
    gate: Callable, rate: Callable, turns: tuple[tuple[float, float], ...], curvature: float
) -> Callable[..., Curve]:
    def make(value: Callable, slope: Callable, *_: float) -> Curve:
        secant = partial(quotients.of_gate, gate, rate)
        least, most = (extreme for _, extreme in turns)
        return Curve(value, slope, secant, least, most, turns, curvature, error=1e-13)

    return make


def _hardswish(value: Callable, slope: Callable, *_: float) -> Curve:
    (gate,) = parse(["clamp:-3:3"])
    ramp = _clamp(gate.value, lambda a: gate.multiply(a, a, torch.ones_like(a)), -3.0, 3.0)

    def secant(a: Tensor, u: Tensor) -> Tensor:
        """φ(a) = a·(clamp(a) + 3)/6."""
        return ((gate.value(a + u) + 3.0) + a * ramp.secant(a, u)) / 6.0

    def stationary(c: Tensor) -> tuple[Tensor, ...]:
        return (*_kinks(-3.0, 3.0)(c), (3.0 * c - 1.5).clamp(-3.0, 3.0))

    turns = ((-3.0, -0.5), (3.0, 1.5))
    return Curve(value, slope, secant, -0.5, 1.5, turns, stationary=stationary, error=32.0 * ULP)


_ROOT2 = math.sqrt(2.0)
GELU = ((-_ROOT2, -0.1289041451851548), (_ROOT2, 1.1289041451851548))
GELU_TANH = ((-1.4185040593147278, -0.1289930686587718), (1.4185040593147278, 1.1289930686587718))
MISH = ((-2.256376385688782, -0.1125261223894620), (1.4905712008476255, 1.0884981612517278))
CURVES: dict[str, Callable[..., Curve]] = {
    "relu": lambda value, slope, *_: _relu(value, slope, 0.0, 0.0),
    "leaky_relu": _relu,
    "elu": _elu,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "silu": _silu,
    "gelu": _gated(quotients.normal, quotients.density, GELU, 0.7979),
    "gelu_tanh": _gated(quotients.cubic, quotients.cubic_rate, GELU_TANH, 0.798),
    "exp_half": _exp_half,
    "maxmin": lambda value, slope, *_: _relu(value, slope, 0.0, 0.0, pairs=True),
    "clamp": _clamp,
    "hardswish": _hardswish,
    "mish": _gated(quotients.logarithmic, quotients.logarithmic_rate, MISH, 0.6443),
    "selu": _selu,
}

"""Operations that are activations, or scales around one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from vaefast.functional.activations import SELU_ALPHA, SELU_SCALE
from vaefast.models.folding import folded
from vaefast.models.plans import CannotLower, Constant
from vaefast.models.rules import RULES, Rule, rule
from vaefast.models.rules_affine import negated, scaled, shifted
from vaefast.models.values import Logarithm, Value

__all__: list[str] = []


def _activated(value: Value, activation: str | Constant) -> Value:
    value = folded(value)
    return replace(value, step=value.step.activated(activation))


def _simple(activation: str) -> Rule:
    return lambda value: _activated(value, activation)


for _name in ("relu", "tanh", "sigmoid", "silu", "mish", "hardswish"):
    RULES[_name] = _simple(_name)


@rule("gelu")
def _gelu(value: Value, *, approximate: str = "none") -> Value:
    return _activated(value, "gelu" if approximate == "none" else "gelu_tanh")


@rule("leaky_relu")
def _leaky_relu(value: Value, slope: float = 0.01) -> Value:
    return _activated(value, f"leaky_relu:{float(slope)}")


@rule("_prelu_kernel", "prelu")
def _prelu(value: Value, slope: Constant) -> Value:
    if math.prod(slope.shape) != 1:
        raise CannotLower("has a slope per channel")
    return _activated(value, slope)


@rule("elu")
def _elu(value: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    if math.isclose(alpha, SELU_ALPHA) and math.isclose(scale, SELU_SCALE) and input_scale == 1:
        return _activated(value, "selu")
    if input_scale != 1:
        value = scaled(value, input_scale)
    if input_scale != 1 and not math.isclose(input_scale * alpha, 1.0):
        raise CannotLower("scales its two sides differently")
    out = _activated(value, f"elu:{float(alpha if input_scale == 1 else 1.0)}")
    scale = scale if input_scale == 1 else scale / input_scale
    return out if scale == 1 else scaled(out, scale)


@rule("selu")
def _selu(value: Value) -> Value:
    return _activated(value, "selu")


@rule("celu")
def _celu(value: Value, alpha: float = 1.0) -> Value:
    return _elu(value, alpha, 1.0, 1.0 / alpha)


@rule("softplus")
def _softplus(value: Value, beta: float = 1, threshold: float = 20) -> Value:
    if threshold < 20:
        raise CannotLower(f"is the identity above {threshold}")
    if beta == 1:
        return _activated(value, "softplus")
    return scaled(_activated(scaled(value, beta), "softplus"), 1.0 / beta)


@rule("log_sigmoid_forward")
def _log_sigmoid(value: Value) -> list[Any]:
    return [negated(_activated(negated(value), "softplus")), None]


@rule("hardsigmoid")
def _hardsigmoid(value: Value) -> Value:
    return _activated(shifted(scaled(value, 1 / 6), 0.5), "clamp:0.0:1.0")


@rule("hardtanh", "clamp", "clip")
def _clamp(value: Value, low: Any = None, high: Any = None) -> Value:
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        raise CannotLower("clamps to tensors")
    if (low, high) == (0, math.inf):
        return _activated(value, "relu")
    return _activated(value, f"clamp:{float(low)}:{float(high)}")


@rule("clamp_min")
def _clamp_min(value: Value, low: Any) -> Value:
    return _clamp(value, low)


@rule("clamp_max")
def _clamp_max(value: Value, high: Any) -> Value:
    return _clamp(value, None, high)


@rule("exp")
def _exp(value: Value) -> Value:
    return _activated(scaled(value, 2.0), "exp_half")


@rule("log")
def _log(value: Value) -> Value | Logarithm:
    step = value.step
    if value.affine is None and step.activation == "exp_half" and step.before is not None:
        return scaled(replace(value, step=step.before), 0.5)
    return Logarithm(value)


@rule("maximum")
def _maximum(a: Any, b: Any) -> Value:
    return _of_pairs(a, b, 0)


@rule("minimum")
def _minimum(a: Any, b: Any) -> Value:
    return _of_pairs(a, b, 1)


def _of_pairs(a: Any, b: Any, second: int) -> Value:
    """The larger or smaller ones of adjacent pairs (2i, 2i + 1) of features are MaxMin's."""
    if not (isinstance(a, Value) and isinstance(b, Value) and a.step is b.step):
        raise CannotLower("compares two values")
    a, b = (a, b) if a.index.flatten()[:1] < b.index.flatten()[:1] else (b, a)
    if a.affine or b.affine or (a.index % 2).any() or not torch.equal(a.index + 1, b.index):
        raise CannotLower("compares values that are no adjacent pairs")
    whole = folded(a)
    if whole.step.width % 2:
        raise CannotLower(f"pairs {whole.step.width} features, an odd number")
    return Value(whole.step.activated("maxmin"), b.index if second else a.index)

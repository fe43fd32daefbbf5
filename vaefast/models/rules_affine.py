"""Operations that scale, shift and add values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vaefast.models.folding import folded, ready
from vaefast.models.plans import CannotLower, Constant, Values
from vaefast.models.rules import rule
from vaefast.models.values import Value, fresh, rescaled

__all__ = ["add", "negated", "scaled", "shifted"]


def _constant(value: Any) -> tuple[Callable[[Values], Tensor], Tensor]:
    """A number or constant as a function of the values, and a pattern of where it differs."""
    if isinstance(value, Constant):
        return lambda values: values.of(value), _numbered(math.prod(value.shape)).reshape(
            value.shape
        )
    if isinstance(value, int | float):
        number = torch.tensor(float(value), dtype=torch.float64, device="cpu")
        return lambda values: number.to(values.device), _numbered(1).reshape(())
    raise CannotLower("takes a second value that depends on the input")


def _numbered(count: int) -> Tensor:
    """1, 2, ..., distinct whatever the default dtype."""
    return torch.arange(1.0, 1 + count, device="cpu", dtype=torch.float64)


def scaled(value: Value, factor: Any) -> Value:
    scale, like = _constant(factor)
    return rescaled(value, scale, None, like)


def shifted(value: Value, term: Any) -> Value:
    shift, like = _constant(term)
    return rescaled(value, None, shift, like)


@rule("add")
def add(a: Any, b: Any, *, alpha: float = 1) -> Value:
    if not isinstance(a, Value):
        return add(scaled(b, alpha) if alpha != 1 else b, a)
    if not isinstance(b, Value):
        return shifted(a, b if alpha == 1 else _times(b, alpha))
    return _sum(a, b if alpha == 1 else scaled(b, alpha))


@rule("sub")
def _sub(a: Any, b: Any, *, alpha: float = 1) -> Value:
    return add(a, b, alpha=-alpha)


@rule("rsub")
def _rsub(a: Any, b: Any, alpha: float = 1) -> Value:
    return add(b, a, alpha=-alpha)


@rule("neg")
def negated(a: Value) -> Value:
    return scaled(a, -1.0)


@rule("mul")
def _mul(a: Any, b: Any) -> Value:
    if isinstance(a, Value) and isinstance(b, Value):
        return _gated(a, b)
    return scaled(a, b) if isinstance(a, Value) else scaled(b, a)


@rule("div")
def _div(a: Any, b: Any) -> Value:
    if not isinstance(a, Value) or isinstance(b, Value):
        raise CannotLower("divides by a value that depends on the input")
    if isinstance(b, Constant):
        return scaled(a, Constant(op=torch.reciprocal, args=(_double(b),), shape=b.shape))
    return scaled(a, 1.0 / b)


def _times(term: Any, factor: float) -> Any:
    if isinstance(term, Constant):
        return Constant(op=torch.mul, args=(_double(term), factor), shape=term.shape)
    return term * factor


def _double(constant: Constant) -> Constant:
    return Constant(op=Tensor.double, args=(constant,), shape=constant.shape)


def _gated(a: Value, b: Value) -> Value:
    """x·sigmoid(x) is SiLU; other products of values are no layer."""
    for value, gate in ((a, b), (b, a)):
        step = gate.step
        gates = step.before is value.step and step.activation == "sigmoid"
        plain = torch.equal(value.index, gate.index) and not (value.affine or gate.affine)
        if gates and plain:
            return replace(value, step=value.step.activated("silu"))
    raise CannotLower("multiplies two values that depend on the input")


def _sum(a: Value, b: Value) -> Value:
    """A residual sum: the longer branch adds what the shorter one ends in."""
    if a.shape != b.shape:
        raise CannotLower("adds values of different shapes")
    if a.step is b.step and torch.equal(a.index, b.index) and not (a.affine or b.affine):
        return scaled(a, 2.0)
    branch, past = sorted((a, b), key=lambda value: -len(value.step.chain()))
    step, earlier = ready(branch), ready(past)
    if not step.open:
        step = folded(fresh(step, tuple(branch.shape[1:]))).step
    if step.width != earlier.width:
        raise CannotLower("adds values of different widths")
    return fresh(replace(step, residual=earlier, variants={}), tuple(branch.shape[1:]))


@rule("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm")
def _batch_norm(
    value: Value, weight: Any, bias: Any, mean: Any, var: Any, training: bool, _: float, eps: float
) -> list[Any]:
    if training or mean is None:
        raise CannotLower("normalises by the statistics of the batch; call model.eval()")
    return [_normalised(value, weight, bias, mean, var, eps), None, None]


@rule("_native_batch_norm_legit_no_training")
def _batch_norm_eval(
    value: Value, weight: Any, bias: Any, mean: Any, var: Any, _: float, eps: float
) -> list[Any]:
    return [_normalised(value, weight, bias, mean, var, eps), None, None]


def _normalised(
    value: Value, weight: Any, bias: Any, mean: Constant, var: Constant, eps: float
) -> Value:
    shape = (-1, *(1,) * (value.index.ndim - 2))

    def scale(values: Values) -> Tensor:
        inverse = (values.of(var).double() + eps).rsqrt()
        inverse = inverse if weight is None else inverse * values.of(weight).double()
        return inverse.reshape(shape)

    def shift(values: Values) -> Tensor:
        moved = -values.of(mean).double().reshape(shape) * scale(values)
        return moved if bias is None else moved + values.of(bias).double().reshape(shape)

    return rescaled(value, scale, shift, _numbered(mean.shape[0]).reshape(shape))

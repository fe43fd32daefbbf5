"""Operations that are layers: products with weights, convolutions, pooling, upsampling."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from vaefast.models.folding import convolved, image, linear, pooled
from vaefast.models.plans import CannotLower, Constant, Parameters
from vaefast.models.rules import rule
from vaefast.models.rules_affine import add
from vaefast.models.values import ROWS, Value
from vaefast.types import Layer, parse_layer

__all__: list[str] = []

aten = torch.ops.aten


def _plain(weight: Constant, bias: Any) -> Parameters:
    if bias is not None and not isinstance(bias, Constant):
        raise CannotLower("has a bias that depends on the input")
    return lambda values: (values.of(weight), None if bias is None else values.of(bias))


def _transposed(weight: Constant) -> Constant:
    if weight.op is aten.t.default:
        return weight.args[0]
    return Constant(op=aten.t.default, args=(weight,), shape=weight.shape[::-1])


@rule("linear")
def _linear(value: Any, weight: Any, bias: Any = None) -> Value:
    if not isinstance(value, Value) or not isinstance(weight, Constant):
        raise CannotLower("has weights that depend on the input")
    return linear(value, _plain(weight, bias), weight.shape[0])


@rule("mm")
def _mm(value: Any, weight: Any) -> Value:
    if not isinstance(value, Value) or not isinstance(weight, Constant):
        raise CannotLower("multiplies two values that depend on the input")
    return _linear(value, _transposed(weight))


@rule("addmm")
def _addmm(bias: Any, value: Any, weight: Any, *, beta: float = 1, alpha: float = 1) -> Value:
    if (beta, alpha) != (1, 1) or not isinstance(weight, Constant):
        raise CannotLower("is no linear layer")
    if isinstance(bias, Constant) and len(bias.shape) == 1 and bias.shape[0] == weight.shape[1]:
        return _linear(value, _transposed(weight), bias)
    return add(_mm(value, weight), bias)


@rule("convolution", "cudnn_convolution", "mkldnn_convolution")
def _convolution(
    value: Any,
    weight: Any,
    bias: Any,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Value:
    if not isinstance(value, Value) or not isinstance(weight, Constant):
        raise CannotLower("has weights that depend on the input")
    axes = len(weight.shape) - 2
    if axes not in (1, 2) or value.index.ndim != axes + 2:
        raise CannotLower(f"is a convolution over {axes} axes")

    def sizes(given: list[int]) -> tuple[int, ...]:
        return tuple(given) * (axes if len(given) == 1 else 1)

    layer = Layer(
        kind="conv_transpose" if transposed else "conv",
        in_shape=tuple(value.shape[1:]),
        out_shape=(),
        stride=sizes(stride),
        padding=sizes(padding),
        dilation=sizes(dilation),
        output_padding=sizes(output_padding) if transposed else (),
        groups=groups,
        kernel=tuple(weight.shape[2:]),
    )
    return convolved(value, _shaped(layer, tuple(weight.shape)), _plain(weight, bias))


def _shaped(layer: Layer, weight_shape: tuple[int, ...] = ()) -> Layer:
    return parse_layer(str(layer), weight_shape)


@rule("avg_pool2d", "avg_pool1d")
def _avg_pool(
    value: Value,
    kernel: list[int],
    stride: list[int] = (),  # type: ignore[assignment]
    padding: list[int] = (0,),  # type: ignore[assignment]
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Value:
    if ceil_mode or divisor or (any(padding) and not count_include_pad):
        raise CannotLower("averages over incomplete windows")
    axes = value.index.ndim - 2

    def sizes(given: Any) -> tuple[int, ...]:
        return tuple(given) * (axes if len(given) == 1 else 1)

    shape = tuple(value.shape[1:])
    layer = Layer(
        "avg_pool", shape, (), sizes(stride or kernel), sizes(padding), kernel=sizes(kernel)
    )
    return pooled(value, _shaped(layer))


@rule("_adaptive_avg_pool2d", "adaptive_avg_pool1d")
def _adaptive(value: Value, size: list[int]) -> Value:
    have = value.shape[2:]
    if any(n % m for n, m in zip(have, size)):
        raise CannotLower("averages over windows of different sizes")
    return _avg_pool(value, [n // m for n, m in zip(have, size)])


@rule("mean")
def _mean(value: Value, dims: list[int] | None = None, keepdim: bool = False) -> Value:
    ndim = value.index.ndim
    if dims is None or sorted(d % ndim for d in dims) != list(range(2, ndim)):
        raise CannotLower("averages over axes that are not the pixels")
    out = _avg_pool(image(value), list(value.shape[2:]))
    return out if keepdim else replace(out, index=out.index.reshape(ROWS, -1))


@rule("upsample_nearest2d", "upsample_nearest1d", "_upsample_nearest_exact2d")
def _upsample(value: Value, size: list[int], *_: Any) -> Value:
    have = value.shape[2:]
    if any(m % n for n, m in zip(have, size)):
        raise CannotLower("upsamples by no whole factor")
    scale = tuple(m // n for n, m in zip(have, size))
    layer = Layer("upsample_nearest", tuple(value.shape[1:]), (), scale)
    return pooled(value, _shaped(layer))

"""What a layer takes of a value: permutations, scales and shifts folded into its weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vaefast.models.plans import CannotLower, Parameters, Step, Values
from vaefast.models.values import Affine, Value, fresh
from vaefast.types import Layer

__all__ = ["convolved", "folded", "image", "linear", "pooled", "ready", "unit"]

NARROW = 512  # widest layer for which an identity matrix is multiplied


def _scaled_inputs(weight: Tensor, scale: Tensor, layer: Layer) -> Tensor:
    if layer.kind == "conv_transpose":
        return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    per_group = len(scale) // layer.groups
    grouped = weight.unflatten(0, (layer.groups, -1))  # [groups, out/groups, in/groups, ...]
    factors = scale.reshape(layer.groups, 1, per_group, *(1,) * (weight.ndim - 2))
    return (grouped * factors).flatten(0, 1)


def linear(value: Value, parameters: Parameters, out: int) -> Value:
    """weight @ value + bias: columns go where the value's features lie in its step."""
    if value.index.ndim != 2:
        raise CannotLower("acts on the last axis of an unflattened tensor")
    features, step, affine = value.features(), value.step, value.affine
    whole, width = value.whole(), step.width
    if not whole or affine is not None:
        parameters = _columns(parameters, None if whole else features, width, affine)
    layer = Layer("linear", (width,), (out,))
    return fresh(Step(layer, step, parameters), (out,))


def _columns(
    before: Parameters, features: Tensor | None, width: int, affine: Affine | None
) -> Parameters:
    def parameters(values: Values) -> tuple[Tensor, Tensor | None]:
        weight, bias = values.pair(before)
        if features is not None:
            wide = weight.new_zeros(len(weight), width)
            weight = wide.index_add_(1, features.to(weight.device), weight)
        if affine is None:
            return weight, bias
        weight = weight.double()
        if affine.shift is not None:
            moved = weight @ affine.shift(values)
            bias = moved if bias is None else bias.double() + moved
        return weight * affine.scale(values), bias

    return parameters


def image(value: Value) -> Value:
    """A value that a convolution or a pooling may take: the whole output of its step, in order."""
    if value.index.ndim not in (3, 4):
        raise CannotLower("takes no batch of [C, L] or [C, H, W]")
    shape = tuple(value.shape[1:])
    if not value.whole() or (value.affine and not value.affine.per_channel(shape[0])):
        return fresh(ready(value), shape)
    return value


def pooled(value: Value, layer: Layer) -> Value:
    """A pooling or upsampling, with nothing that waits before it."""
    value = image(value)
    step = value.step if value.affine is None else folded(value, layer.in_shape).step
    return fresh(Step(layer, step, without_weights), layer.out_shape)


def convolved(value: Value, layer: Layer, parameters: Parameters) -> Value:
    """A convolution; a scale that waits goes into its input channels, a shift becomes a layer."""
    value = image(value)
    if value.affine is not None and value.affine.shift is not None:
        value = folded(value, layer.in_shape)
    if value.affine is not None:
        parameters = _channels(parameters, layer, value.affine)
    return fresh(Step(layer, value.step, parameters), layer.out_shape)


def _channels(before: Parameters, layer: Layer, affine: Affine) -> Parameters:
    channels = layer.in_shape[0]

    def parameters(values: Values) -> tuple[Tensor, Tensor | None]:
        weight, bias = values.pair(before)
        scale = affine.scale(values).reshape(channels, -1)[:, 0]
        return _scaled_inputs(weight.double(), scale, layer), bias

    return parameters


def folded(value: Value, shape: tuple[int, ...] = ()) -> Value:
    """The value with its scale and shift folded into a step without activation.

    ``shape``: [C, ...] of the step's whole output, where it is seen as an image.
    """
    step, affine = value.step, value.affine
    if affine is None:
        plain = step.source is not None and step.activation == "identity"
        return value if plain else replace(value, step=unit(step))
    shape = shape or (() if step.linear else step.layer.out_shape)
    if len(shape) > 1 and affine.per_channel(shape[0]):
        return replace(value, step=_depthwise(step, affine, shape), affine=None)
    return replace(value, step=_through_matrix(step, None, affine), affine=None)


def unit(step: Step, shape: tuple[int, ...] = ()) -> Step:
    """A layer that changes nothing, with room for an activation.

    ``shape``: in which a linear step's output is read as an image, () where it is not.
    """
    shape = shape if step.linear else step.layer.out_shape
    if len(shape) not in (2, 3) and step.width > NARROW:
        shape = (step.width, 1)
    if len(shape) not in (2, 3):
        return _through_matrix(step, None, None)
    ones, none = (1,) * (len(shape) - 1), (0,) * (len(shape) - 1)
    layer = Layer("avg_pool", shape, shape, stride=ones, padding=none, kernel=ones)
    return Step(layer, step, without_weights)


def ready(value: Value) -> Step:
    """A step whose flat output is the value, row by row."""
    features, step = value.features(), value.step
    if value.whole():
        return step if value.affine is None else folded(value).step
    by_rows = step.linear and step.residual is None and step.activation != "maxmin"
    if by_rows and value.affine is None:
        return _selected(step, features)
    return _through_matrix(step, features, value.affine)


def _selected(step: Step, features: Tensor) -> Step:
    """A linear step with some of its rows, which are views where they lie side by side."""
    before = step.parameters
    assert before is not None
    first, count = int(features[0]) if len(features) else 0, len(features)
    side_by_side = torch.equal(features, torch.arange(first, first + count, device="cpu"))
    rows: slice | Tensor = slice(first, first + count) if side_by_side else features

    def parameters(values: Values) -> tuple[Tensor, Tensor | None]:
        weight, bias = values.pair(before)
        return weight[rows], None if bias is None else bias[rows]

    layer = step.layer._replace(out_shape=(count,))
    return replace(step, layer=layer, parameters=parameters, before=None, variants={})


def _through_matrix(step: Step, features: Tensor | None, affine: Affine | None) -> Step:
    """A linear layer that selects, scales and shifts features of a narrow step."""
    width = step.width
    if width > NARROW:
        what = "a permutation or selection" if features is not None else "a second activation"
        what = "a scale or shift" if affine is not None and features is None else what
        raise CannotLower(f"needs {what} of {width} features as a layer, at most {NARROW} are")
    rows = torch.arange(width, device="cpu") if features is None else features

    def parameters(values: Values) -> tuple[Tensor, Tensor | None]:
        weight = torch.eye(width, dtype=torch.float64, device=values.device)
        at = rows.to(values.device)
        if affine is None:
            return weight[at], None
        bias = None if affine.shift is None else affine.shift(values)[at]
        return (weight * affine.scale(values))[at], bias

    return Step(Layer("linear", (width,), (len(rows),)), step, parameters)


def without_weights(values: Values) -> tuple[Tensor, None]:
    return torch.empty(0, dtype=values.dtype, device=values.device), None


def _depthwise(step: Step, affine: Affine, shape: tuple[int, ...]) -> Step:
    channels, ones, none = shape[0], (1,) * (len(shape) - 1), (0,) * (len(shape) - 1)

    def parameters(values: Values) -> tuple[Tensor, Tensor | None]:
        scale = affine.scale(values).reshape(channels, -1)[:, 0]
        weight = scale.reshape(channels, 1, *ones)
        if affine.shift is None:
            return weight, None
        return weight, affine.shift(values).reshape(channels, -1)[:, 0]

    layer = Layer("conv", shape, shape, ones, none, ones, groups=channels, kernel=ones)
    return Step(layer, step, parameters)

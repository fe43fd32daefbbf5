"""The layer kinds: a layer's linear map and its adjoint on flat rows."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vaefast.types import Layer

__all__ = ["adjoint", "adjoint_window", "apply", "bias_gradient", "weight_gradient"]

_CONV = {1: F.conv1d, 2: F.conv2d}
_SPREAD = {1: F.conv_transpose1d, 2: F.conv_transpose2d}


def apply(layer: Layer, h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The layer on rows: h [..., in] to [..., out], without residual sum and activation."""
    if layer.kind == "linear":
        return F.linear(h, weight, bias)
    images = h.reshape(-1, *layer.in_shape)
    axes = images.ndim - 2
    if layer.kind == "conv":
        options = layer.stride, layer.padding, layer.dilation, layer.groups
        out = _CONV[axes](images, weight, bias, *options)
    elif layer.kind == "conv_transpose":
        spread = layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation
        out = _SPREAD[axes](images, weight, bias, *spread)
    elif layer.kind == "avg_pool":
        pool = F.avg_pool1d if axes == 1 else F.avg_pool2d
        out = pool(images, layer.kernel, layer.stride, layer.padding)
    else:
        out = images
        for axis, scale in enumerate(layer.stride):
            out = out.repeat_interleave(scale, dim=2 + axis)
    return out.reshape(*h.shape[:-1], layer.out_features)


def adjoint(layer: Layer, u: Tensor, weight: Tensor) -> Tensor:
    """The transposed map: u [..., out] to [..., in]."""
    if layer.kind == "linear":
        return u @ weight
    images = u.reshape(-1, *layer.out_shape)
    if layer.kind == "conv":
        into = _spread_back(layer, images, weight, layer.groups, layer.dilation)
    elif layer.kind == "conv_transpose":
        options = layer.stride, layer.padding, layer.dilation, layer.groups
        into = _CONV[len(layer.stride)](images, weight, None, *options)
        for axis, size in enumerate(layer.in_shape[1:], start=2):  # an output padding past a stride
            into = into.narrow(axis, 0, size)
    elif layer.kind == "avg_pool":
        into = _pool_back(layer, images)
    else:
        pool = F.avg_pool1d if images.ndim == 3 else F.avg_pool2d
        into = pool(images, layer.stride) * math.prod(layer.stride)
    return into.reshape(*u.shape[:-1], layer.in_features)


def adjoint_window(
    layer: Layer, images: Tensor, weight: Tensor, pads: tuple[tuple[int, ...], ...]
) -> Tensor:
    """The transposed map of a part of the output, [n, C, ...], to the part of the input it reads.

    Args:
        pads: for each axis what the product is padded by, before and after, cut where negative;
            what goes in where the map is a transposed convolution or an upsampling.
    """
    around = [size for pad in reversed(pads) for size in pad]
    stride, axes = layer.stride, len(layer.stride)
    if layer.kind == "upsample_nearest":
        pool = F.avg_pool1d if axes == 1 else F.avg_pool2d
        return pool(F.pad(images, around), stride) * math.prod(stride)
    if layer.kind == "conv_transpose":
        images = F.pad(images, around)
        return _CONV[axes](images, weight, None, stride, 0, layer.dilation, layer.groups)
    groups, dilation = layer.groups, layer.dilation or 1
    if layer.kind == "avg_pool":
        groups = images.shape[1]
        weight = images.new_full((groups, 1, *layer.kernel), 1.0 / math.prod(layer.kernel))
    return F.pad(_SPREAD[axes](images, weight, None, stride, 0, 0, groups, dilation), around)


def weight_gradient(layer: Layer, h: Tensor, u: Tensor, weight: Tensor) -> Tensor:
    """Σ over rows of ⟨u, W h⟩ derived in the weight: inputs h [n, in], cotangents u [n, out]."""
    if layer.kind == "linear":
        return u.T @ h
    if not weight.numel():
        return torch.zeros_like(weight)
    images, ends = h.reshape(-1, *layer.in_shape), u.reshape(-1, *layer.out_shape)
    options = layer.stride, layer.padding, layer.dilation
    spread = layer.output_padding or (0,) * len(layer.stride)
    transposed, wanted = layer.kind == "conv_transpose", (False, True, False)
    found = torch.ops.aten.convolution_backward(
        ends, images, weight, None, *options, transposed, spread, layer.groups, wanted
    )
    return found[1]


def bias_gradient(layer: Layer, u: Tensor) -> Tensor:
    """Σ over rows and pixels of u [n, out]: [channels], or [out] of a linear layer."""
    channels = u.reshape(len(u), layer.out_shape[0], -1)
    return channels.sum((0, 2))


def _spread_back(
    layer: Layer, images: Tensor, weight: Tensor, groups: int, dilation: tuple[int, ...]
) -> Tensor:
    """Adjoint of a convolution; inputs that no window reaches get 0."""
    sizes = zip(
        layer.in_shape[1:],
        layer.out_shape[1:],
        layer.stride,
        layer.padding,
        dilation,
        layer.kernel,
        strict=True,
    )
    left = tuple(n + 2 * p - d * (k - 1) - 1 - (m - 1) * s for n, m, s, p, d, k in sizes)
    spread = _SPREAD[len(left)]
    return spread(images, weight, None, layer.stride, layer.padding, left, groups, dilation)


def _pool_back(layer: Layer, images: Tensor) -> Tensor:
    channels, axes = layer.in_shape[0], len(layer.kernel)
    weight = images.new_full((channels, 1, *layer.kernel), 1.0 / math.prod(layer.kernel))
    return _spread_back(layer, images, weight, channels, (1,) * axes)

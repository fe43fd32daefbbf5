"""What the C++ kernels take: addresses, strides and a network's layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from vaefast.functional.activations import named
from vaefast.functional.rows import rows_of
from vaefast.runtime import threads
from vaefast.types import LIKELIHOODS, Layer, Network, all_linear, parse_layer

__all__ = [
    "aligned",
    "by_rows_and_columns",
    "kernel",
    "layers_of",
    "like_of",
    "plain_rows",
    "root_at",
    "rows_at",
    "run_probes",
    "tape_width",
]

# in the order of csrc/calls.h
ACTIVATIONS = (
    "identity",
    "relu",
    "leaky_relu",
    "elu",
    "tanh",
    "sigmoid",
    "softplus",
    "silu",
    "gelu",
    "gelu_tanh",
    "exp_half",
    "maxmin",
    "clamp",
    "hardswish",
    "mish",
    "selu",
)


NO_RESIDUAL = -2


@cache
def kernel(op: str, dtype: torch.dtype) -> Callable[..., Any]:
    """``vaefast._C``'s function for an op in float32 or float64."""
    from vaefast import _C

    return getattr(_C, f"{op}_f32" if dtype == torch.float32 else f"{op}_f64")


def rows_at(t: Tensor | None) -> tuple[int, int]:
    """Address and row stride of a matrix with contiguous rows; zeros for None."""
    return (0, 0) if t is None else (t.data_ptr(), t.stride(0))


def plain_rows(*tensors: Any) -> list[Any]:
    """The matrices with contiguous rows; keep them alive while their addresses are in use."""
    return [None if t is None else rows_of(t) for t in tensors]


def by_rows_and_columns(root: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """S and Sᵀ [B, d, d] as the kernels read them; keep them alive while they are in use."""
    return None if root is None else (root.contiguous(), root.mT.contiguous())


def root_at(root: tuple[Tensor, Tensor] | None) -> tuple[int, int]:
    """Addresses of S by rows and by columns; zeros for None."""
    return (0, 0) if root is None else (root[0].data_ptr(), root[1].data_ptr())


def aligned(packed: Tensor | None) -> Tensor | None:
    """A pack as the kernels read it: contiguous, at a multiple of 64 bytes, copied if need be."""
    if packed is None or (packed.is_contiguous() and packed.data_ptr() % 64 == 0):
        return packed
    return packed.clone(memory_format=torch.contiguous_format)


def layers_of(
    weights: list[Tensor], biases: list[Tensor | None], layers: list[str], packed: Tensor | None
) -> tuple[tuple[list[tuple], int, int, list[list[int]]], list[Tensor | None]]:
    """A network's layers and pack as the kernels take them, and the tensors they point into."""
    biases = [None if bias is None else bias.contiguous() for bias in biases]
    names, widths = tuple(layers), [(*w.shape,) for w in weights]
    pixels: list[list[int]] = []
    if not all_linear(layers):
        weights = [w if w.ndim == 2 else w.contiguous() for w in weights]
        pixels, widths = _with_pixels(names, tuple(w.shape for w in weights))
    rows = [
        (*_matrix_at(w), 0 if b is None else b.data_ptr(), *width, *activation)
        for w, b, width, activation in zip(weights, biases, widths, _numbered(names))
    ]
    if packed is None:
        return (rows, 0, 0, pixels), [*weights, *biases]
    packed = aligned(packed)
    assert packed is not None
    return (rows, packed.data_ptr(), packed.nbytes, pixels), [*weights, *biases, packed]


def tape_width(net: Network) -> int:
    """Elements of a row of the tape that net_forward keeps for net_vjp: its layers' slopes."""
    shapes = tuple([tuple([int(n) for n in w.shape]) for w in net.weights])
    return _tape_width(tuple(net.layers), shapes, net.weights[0].dtype)


@lru_cache(maxsize=256)
def _tape_width(
    names: tuple[str, ...], shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype
) -> int:
    pixels, widths = ([], shapes) if all_linear(names) else _with_pixels(names, shapes)
    rows = [(0, 0, 0, 0, *w, *activation) for w, activation in zip(widths, _numbered(names))]
    return kernel("tape_width", dtype)((rows, 0, 0, pixels))


def _matrix_at(weight: Tensor) -> tuple[int, int, int]:
    """Address and strides of a matrix; a convolution's weights are contiguous, a pooling's none."""
    if weight.ndim == 2:
        return weight.data_ptr(), weight.stride(0), weight.stride(1)
    return (weight.data_ptr() if weight.numel() else 0), 0, 0


@lru_cache(maxsize=256)
def _with_pixels(
    names: tuple[str, ...], shapes: tuple[tuple[int, ...], ...]
) -> tuple[list[list[int]], list[tuple[int, ...]]]:
    """Per layer its sizes in the order of csrc/bind/network.h, and outputs and inputs."""
    layers = [parse_layer(name, tuple(shape)) for name, shape in zip(names, shapes)]
    return [_sizes(layer) for layer in layers], [(la.out_features, la.in_features) for la in layers]


def _sizes(layer: Layer) -> list[int]:
    residual = NO_RESIDUAL if layer.residual is None else layer.residual
    if layer.kind == "linear":
        return [0] * 17 + [residual]
    up, pools = layer.kind == "upsample_nearest", layer.kind == "avg_pool"
    one, none = (1,) * len(layer.stride), (0,) * len(layer.stride)
    axes = zip(
        layer.in_shape[1:],
        layer.out_shape[1:],
        layer.stride if up else layer.kernel,
        layer.stride,
        layer.padding or none,
        layer.dilation or one,
        strict=True,
    )
    flat = [(1, 1, 1, 1, 0, 1)] * (2 - len(layer.stride))  # signals are images of one row
    channels = [layer.in_shape[0], layer.out_shape[0]]
    groups = channels[0] if up or pools else layer.groups
    transposed = up or layer.kind == "conv_transpose"
    sizes = [size for axis in (*flat, *axes) for size in axis]
    return [1, int(transposed), *channels, groups, *sizes, residual]


@lru_cache(maxsize=256)
def _numbered(layers: tuple[str, ...]) -> list[tuple[int, float, float]]:
    parts = [named(layer.split()[-1]) for layer in layers]
    return [(ACTIVATIONS.index(name), *parameters) for name, parameters in parts]


class Address(int):
    """A tensor's address, which keeps the tensor alive."""

    tensor: Tensor

    @classmethod
    def of(cls, t: Tensor) -> Address:
        address = cls(t.data_ptr())
        address.tensor = t
        return address


def like_of(x: Tensor, rows: int, likelihood: str, parameters: Sequence[Tensor]) -> tuple:
    """Images, chains per image, likelihood and the Gaussian's std as the kernels take them.

    Args:
        x: images [B, D] with contiguous rows, which must outlive the result.
        rows: B·C.
        likelihood: one of ``vaefast.types.LIKELIHOODS``.
        parameters: the Gaussian's [std], a scalar, [D] or [B, D]; 1 where it is not given.
    """
    std = _std_at(*parameters or (x.new_ones(()),)) if likelihood == "gaussian" else (0, 0, 0)
    return rows_at(x), rows // max(len(x), 1), LIKELIHOODS.index(likelihood), std


def _std_at(std: Tensor) -> tuple[Address, int, int]:
    """Address, row stride, and 1 where each pixel has a value of its own, else 0."""
    if std.ndim and std.stride(-1) not in (0, 1):
        std = std.contiguous()
    row, column = (0, 0, *std.stride())[-2:]
    return Address.of(std), row, column


def run_probes(
    op: str,
    x: Tensor,
    probes: Tensor,
    out: int,
    net: Network,
    full: bool,
    tape: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, squared norms and, where ``full``, the products [B, K, out] of net_jvp or net_vjp.

    With a ``tape`` of net_forward, which net_vjp takes where ``full``, y is [B, 0].
    """
    B, K = len(x), probes.shape[-2]
    layers, _alive = layers_of(*net)
    y = x.new_empty((B, net.out_features if tape is None else 0))
    sq = x.new_empty((B, K), dtype=torch.float64)
    products = x.new_empty((B, K if full else 0, out))
    inputs, rows, kept = plain_rows(x, probes.flatten(0, -2), tape)
    kernel(op, x.dtype)(
        (rows_at(y), (products.data_ptr() if full else 0, out)),
        sq.data_ptr(),
        (rows_at(inputs), rows_at(rows), rows_at(kept)),
        probes.ndim == 2,
        (B, K),
        layers,
        threads.count(),
    )
    return y, sq, products

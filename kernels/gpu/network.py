"""An MLP as the kernels take it: one constant that describes it and one buffer that holds it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import torch
import triton
from torch import Tensor

from vaefast.functional.activations import named

__all__ = ["Net", "describe", "forward_only", "net_of", "of", "pack", "size_of", "unpack"]

ROW_PAD = 128  # outputs of a layer are computed in tiles of at most so many rows
COLUMN_PAD = 64  # sums over a layer's inputs run in blocks that divide this


@dataclass(frozen=True)
class Net:
    """What a kernel is compiled for: widths and activations, and where each matrix lies.

    Offsets of ``weight``, ``turned`` (its transpose) and ``bias`` are elements of the packed
    buffer. Offsets of ``post``, layer l's inputs, and ``slope`` count features of a tile's
    scratch, each with one value for every row of the tile.
    """

    widths: tuple[int, ...]  # d, H_1, ..., D
    activations: tuple[str, ...]
    parameters: tuple[tuple[float, float], ...]
    columns: tuple[int, ...]  # each width padded: row strides of the packed matrices
    weight: tuple[int, ...]
    turned: tuple[int, ...]
    bias: tuple[int, ...]
    packed: int  # elements of the buffer
    post: tuple[int, ...]  # one more than layers: the last holds the output's cotangent
    slope: tuple[int, ...]
    features: int  # of a tile's scratch

    @property
    def depth(self) -> int:
        return len(self.activations)


@triton.constexpr_function
def of(net, field, layer=None):
    """A field of a Net inside a kernel, for one layer where it has one value each."""
    value = getattr(net, field)
    return value if layer is None else value[layer]


def net_of(weights: list[Tensor], layers: list[str]) -> Net:
    """The description of a network with these matrices."""
    names = ",".join(layer.split()[-1] for layer in layers)
    return describe((weights[0].shape[1], *(w.shape[0] for w in weights)), names)


@lru_cache(maxsize=256)
def describe(widths: tuple[int, ...], names: str) -> Net:
    """The Net of these widths, d to D, and activations, one name a layer, comma separated."""
    parts = [named(name) for name in names.split(",")]
    at, weight, turned, bias = 0, [], [], []
    for inputs, outputs in pairwise(widths):
        sizes = _size(outputs, inputs), _size(inputs, outputs), _up(outputs, ROW_PAD)
        for offsets, size in zip((weight, turned, bias), sizes):
            offsets.append(at)
            at += size
    features, post, slope = 0, [], []
    for offsets, rows in ((post, widths), (slope, widths[1:])):
        for width in rows:
            offsets.append(features)
            features += _up(width, ROW_PAD)
    return Net(
        widths,
        tuple(name for name, _ in parts),
        tuple(parameters for _, parameters in parts),
        tuple(_up(width, COLUMN_PAD) for width in widths),
        tuple(weight),
        tuple(turned),
        tuple(bias),
        at,
        tuple(post),
        tuple(slope),
        features,
    )


@lru_cache(maxsize=256)
def forward_only(net: Net) -> Net:
    """The same network with a scratch for the forward pass: two layers' inputs, in turns."""
    sizes = [_up(width, ROW_PAD) for width in net.widths[:-1]]
    even, odd = max(sizes[::2]), max(sizes[1::2], default=0)
    places = tuple(layer % 2 * even for layer in range(net.depth))
    return replace(net, post=places, slope=(), features=even + odd)


def pack(weights: list[Tensor], biases: list[Tensor | None], net: Net) -> Tensor:
    """Every matrix, its transpose and its bias, padded with zeros; behind them all of it in bf16.

    Float64 networks have no bf16 copy. The result's dtype is the weights'.
    """
    like = weights[0]
    buffer = like.new_zeros(size_of(net, like.dtype))
    for layer, (w, b) in enumerate(zip(weights, biases)):
        outputs, inputs = w.shape
        _matrix(buffer, net.weight[layer], outputs, inputs).copy_(w)
        _matrix(buffer, net.turned[layer], inputs, outputs).copy_(w.T)
        if b is not None:
            buffer[net.bias[layer] :][:outputs].copy_(b)
    if like.dtype == torch.float32:
        buffer[net.packed :].view(torch.bfloat16).copy_(buffer[: net.packed])
    return buffer


def unpack(
    weights: list[Tensor], biases: list[Tensor | None], packed: Tensor | None, net: Net
) -> tuple[Tensor, Tensor]:
    """The buffer's two halves, full precision and bf16; packed now where no pack was given."""
    like = weights[0]
    if packed is None:
        packed = pack(weights, biases, net)
    elif packed.dtype != like.dtype or len(packed) != size_of(net, like.dtype):
        raise ValueError("net.packed was made for another network or backend; pack it again")
    full, half = packed[: net.packed], packed[net.packed :]
    return full, half.view(torch.bfloat16) if len(half) else full


def size_of(net: Net, dtype: torch.dtype) -> int:
    """Elements of a packed buffer."""
    return net.packed + (net.packed // 2 if dtype == torch.float32 else 0)


def _matrix(buffer: Tensor, at: int, rows: int, columns: int) -> Tensor:
    stride = _up(columns, COLUMN_PAD)
    return buffer[at : at + _size(rows, columns)].view(_up(rows, ROW_PAD), stride)[:rows, :columns]


def _size(rows: int, columns: int) -> int:
    return _up(rows, ROW_PAD) * _up(columns, COLUMN_PAD)


def _up(n: int, unit: int) -> int:
    return -(-n // unit) * unit

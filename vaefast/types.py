"""Plain-tensor descriptions that every floor shares: a network and the likelihood names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from torch import Tensor

__all__ = [
    "KINDS",
    "LIKELIHOODS",
    "Layer",
    "Network",
    "activations",
    "all_linear",
    "in_features",
    "out_features",
    "parse_layer",
]

LIKELIHOODS = ("bernoulli", "gaussian", "continuous_bernoulli", "clamped_bernoulli")
KINDS = ("linear", "conv", "conv_transpose", "avg_pool", "upsample_nearest")
WEIGHTED = KINDS[:3]

# the fields of each kind, in the order they are written; None: it must be given
_FIELDS: dict[str, dict[str, int | None]] = {
    "linear": {},
    "conv": {"stride": 1, "padding": 0, "dilation": 1, "groups": 1},
    "conv_transpose": {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0, "groups": 1},
    "avg_pool": {"kernel": None, "stride": None, "padding": 0},
    "upsample_nearest": {"scale": None},
}


class Layer(NamedTuple):
    """One layer of a network, read from its text; sizes per axis, shapes without the batch.

    Args:
        kind: one of :data:`KINDS`.
        in_shape: [in] of a linear layer, else [C, L] or [C, H, W].
        out_shape: likewise; () where the text was read without a weight's shape that it needs.
        stride: of a convolution or a pooling; the scale of an upsampling.
        kernel: from the weight's shape or, of a pooling, from the text.
        residual: index of the layer whose output is added before the activation, −1 for the
            network's input, None for no sum.
        activation: its name with its parameters.
    """

    kind: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    kernel: tuple[int, ...] = ()
    residual: int | None = None
    activation: str = "identity"

    @property
    def in_features(self) -> int:
        return math.prod(self.in_shape)

    @property
    def out_features(self) -> int:
        return math.prod(self.out_shape)

    def __str__(self) -> str:
        """The canonical text, which :func:`parse_layer` reads."""
        words = [self.kind]
        if self.kind != "linear":
            words.append(f"in={_joined(self.in_shape)}")
        for name in _FIELDS[self.kind]:
            value = self.stride if name == "scale" else getattr(self, name)
            words.append(f"{name}={value if name == 'groups' else _joined(value)}")
        if self.residual is not None:
            words.append(f"+{self.residual}")
        return " ".join([*words, self.activation])


@lru_cache(maxsize=4096)
def parse_layer(text: str, weight_shape: tuple[int, ...] = ()) -> Layer:
    """The layer that a text describes; its weight's shape gives kernel and output channels.

    Raises:
        ValueError: an unknown kind, or a field that is missing, malformed or not taken.
    """
    kind, *words = text.split()
    if kind not in KINDS:
        raise ValueError(f"layers must be among {', '.join(KINDS)}, got {text!r}")
    if not words:
        raise ValueError(f"layer {text!r} must end in its activation, as in '{text} identity'")
    *options, activation = words
    residual = None
    given: dict[str, tuple[int, ...]] = {}
    try:
        for word in options:
            if word.startswith("+"):
                residual = int(word[1:])
            else:
                name, value = word.split("=")
                given[name] = tuple(int(size) for size in value.split("x"))
    except ValueError:
        raise ValueError(f"layer {text!r} has a malformed word {word!r}") from None
    allowed = {} if kind == "linear" else {"in": None, **_FIELDS[kind]}
    if unknown := given.keys() - allowed.keys():
        raise ValueError(f"layer {text!r} takes no {', '.join(sorted(unknown))}")
    if missing := [n for n, default in allowed.items() if default is None and n not in given]:
        raise ValueError(f"layer {text!r} must give {', '.join(missing)}")
    if kind == "linear":
        in_shape, out_shape = weight_shape[1:], weight_shape[:1]
        return Layer(kind, in_shape, out_shape, residual=residual, activation=activation)
    return _spatial(text, kind, given, weight_shape, residual, activation)


def _spatial(
    text: str,
    kind: str,
    given: dict[str, tuple[int, ...]],
    weight_shape: tuple[int, ...],
    residual: int | None,
    activation: str,
) -> Layer:
    in_shape = given.pop("in")
    axes = len(in_shape) - 1
    if axes not in (1, 2):
        raise ValueError(f"layer {text!r} must have in=CxL or in=CxHxW, got {_joined(in_shape)}")
    groups = given.pop("groups", (1,))[0]
    defaults = {n: (v,) * axes for n, v in _FIELDS[kind].items() if v is not None and n != "groups"}
    sizes = defaults | given
    if wrong := [name for name, size in sizes.items() if len(size) != axes]:
        raise ValueError(f"layer {text!r} must give {axes} sizes for {', '.join(wrong)}")
    if "scale" in sizes:
        sizes["stride"] = sizes.pop("scale")
    if kind in WEIGHTED:
        sizes["kernel"] = weight_shape[2:]
    layer = Layer(
        kind, in_shape, (), **sizes, groups=groups, residual=residual, activation=activation
    )
    if kind in WEIGHTED and len(weight_shape) != axes + 2:
        return layer
    return layer._replace(out_shape=_out_shape(layer, weight_shape))


def _out_shape(layer: Layer, weight_shape: tuple[int, ...]) -> tuple[int, ...]:
    channels, *sizes = layer.in_shape
    axes = range(len(sizes))
    s, p, k = layer.stride, layer.padding, layer.kernel
    if layer.kind == "upsample_nearest":
        return (channels, *(sizes[i] * s[i] for i in axes))
    if layer.kind == "conv_transpose":
        d, q = layer.dilation, layer.output_padding
        spread = [(sizes[i] - 1) * s[i] - 2 * p[i] + d[i] * (k[i] - 1) + q[i] + 1 for i in axes]
        return (weight_shape[1] * layer.groups, *spread)
    d = layer.dilation or (1,) * len(sizes)
    strided = [(sizes[i] + 2 * p[i] - d[i] * (k[i] - 1) - 1) // s[i] + 1 for i in axes]
    return (weight_shape[0] if layer.kind == "conv" else channels, *strided)


def _joined(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


class _Fields(NamedTuple):
    weights: list[Tensor]
    biases: list[Tensor | None]
    layers: list[str]
    packed: Tensor | None = None


class Network(_Fields):
    """A network as plain tensors: h_l = φ_l(layer_l(h_{l−1}) + h_k), each h flat, [n, features].

    Args:
        weights: one tensor per layer, as the module of its kind holds it: [out, in] of a linear
            layer, [out, in/groups, ...] of a convolution, [in, out/groups, ...] of a transposed
            one; an empty [0] tensor for pooling and upsampling.
        biases: one [out] vector or ``None`` per layer.
        layers: one description per layer, from its kind to its activation. The last activation is
            the epilogue. ::

                "linear tanh"
                "conv in=1x28x28 stride=2x2 padding=1x1 dilation=1x1 groups=1 leaky_relu:0.1"
                "conv_transpose in=8x7x7 stride=2x2 padding=1x1 output_padding=1x1 relu"
                "avg_pool in=64x8x8 kernel=2x2 stride=2x2 padding=0x0 identity"
                "upsample_nearest in=64x4x4 scale=2x2 identity"

            One axis is written without the x, as in ``in=4x100 stride=2``. A residual sum is
            ``+k`` before the activation: the output of layer k is added, −1 being the input.
        packed: the layers as one backend's kernels stream them, from ``pack``; None: packed anew in
            each call. It holds weights and biases, so the activations may change beside it.
    """

    __slots__ = ()

    @classmethod
    def mlp(
        cls, weights: Sequence[Tensor], biases: Sequence[Tensor | None], activations: str
    ) -> Network:
        """A multilayer perceptron; ``activations`` names one per layer, comma separated."""
        layers = [f"linear {name.strip()}" for name in activations.split(",")]
        return cls(list(weights), list(biases), layers)

    @property
    def is_mlp(self) -> bool:
        """Whether all layers are linear, without residual sums."""
        return all_linear(self.layers)

    @property
    def in_features(self) -> int:
        return in_features(self)

    @property
    def out_features(self) -> int:
        return out_features(self)

    @property
    def activations(self) -> list[str]:
        """One activation per layer, with its parameters."""
        return activations(self.layers)

    def layer(self, index: int) -> Layer:
        """The description of one layer, with its shapes."""
        text, shape = self.layers[index], self.weights[index].shape
        if text.startswith("linear "):  # whose sizes may be symbols
            return parse_layer(text)._replace(in_shape=(*shape[1:],), out_shape=(*shape[:1],))
        return parse_layer(text, tuple(int(size) for size in shape))

    def parsed(self) -> list[Layer]:
        """The descriptions of all layers, with their shapes."""
        return [self.layer(index) for index in range(len(self.layers))]

    def with_epilogue(self, activation: str) -> Network:
        """The same network with another activation after its last layer."""
        *before, last = self.layers
        layers = [*before, " ".join([*last.split()[:-1], activation])]
        return Network(self.weights, self.biases, layers, self.packed)

    def _replace(self, **changes: Any) -> Network:
        """As for any named tuple, but other weights or biases leave the pack of these behind."""
        if changes.keys() & {"weights", "biases"}:
            changes.setdefault("packed", None)
        fields = {name: getattr(self, name) for name in _Fields._fields}
        return Network(**{**fields, **changes})


# plain functions beside the properties: torch.compile traces no property of a tuple in torch 2.6


def all_linear(layers: Sequence[str]) -> bool:
    """Whether all layers are linear, without residual sums."""
    return all(layer.startswith("linear ") and "+" not in layer for layer in layers)


def activations(layers: Sequence[str]) -> list[str]:
    """One activation per layer, with its parameters."""
    return [layer.split()[-1] for layer in layers]


def in_features(net: Network) -> int:
    """Features of the first layer's input."""
    layer, weight = net.layers[0], net.weights[0]
    if layer.startswith("linear"):
        return weight.shape[1]
    return parse_layer(layer, tuple(int(size) for size in weight.shape)).in_features


def out_features(net: Network) -> int:
    """Features of the last layer's output."""
    layer, weight = net.layers[-1], net.weights[-1]
    if layer.startswith("linear"):
        return weight.shape[0]
    return parse_layer(layer, tuple(int(size) for size in weight.shape)).out_features

"""Convolutional networks that tests and benchmarks share, as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vaefast.runtime.defaults import default_device
from vaefast.types import Network, parse_layer

__all__ = ["PIXEL_NETWORKS", "dcgan_decoder", "pixel_network", "published_decoder"]

# of Kuzina et al. 2022, for 28x28 images
PUBLISHED_DECODER = (
    "conv_transpose in={d}x1x1 dilation=2x2 relu: 128 3 3",
    "conv_transpose in=128x5x5 relu: 96 3 3",
    "conv_transpose in=96x7x7 padding=1x1 relu: 64 3 3",
    "conv_transpose in=64x7x7 stride=2x2 padding=1x1 relu: 32 4 4",
    "conv_transpose in=32x14x14 stride=2x2 padding=1x1 identity: 1 4 4",
)
PUBLISHED_ENCODER = (
    "conv in=1x28x28 stride=2x2 padding=1x1 relu: 32 3 3",
    "conv in=32x14x14 stride=2x2 padding=1x1 relu: 64 3 3",
    "conv in=64x7x7 stride=2x2 padding=1x1 relu: 96 3 3",
    "conv in=96x4x4 stride=2x2 padding=1x1 relu: 128 3 3",
    "conv in=128x2x2 stride=2x2 padding=1x1 identity: {d} 3 3",
)
DCGAN_DECODER = (
    "linear relu: 4096 {d}",
    "conv_transpose in=256x4x4 stride=2x2 padding=1x1 relu: 128 4 4",
    "conv_transpose in=128x8x8 stride=2x2 padding=1x1 relu: 64 4 4",
    "conv_transpose in=64x16x16 stride=2x2 padding=1x1 identity: 3 4 4",
)
# every layer kind once: 2x6x6 images
MIXED_DECODER = (
    "linear tanh: 27 {d}",
    "conv in=3x3x3 padding=1x1 silu: 37 3 3",
    "upsample_nearest in=37x3x3 scale=2x2 identity",
    "conv in=37x6x6 padding=1x1 groups=37 relu: 37 3 3",
    "conv in=37x6x6 +2 elu:0.7: 37 1 1",
    "conv_transpose in=37x6x6 padding=1x1 identity: 2 3 3",
)
MIXED_ENCODER = (
    "conv in=2x6x6 padding=1x1 tanh: 18 3 3",
    "conv in=18x6x6 padding=2x2 dilation=2x2 groups=2 +0 relu: 18 3 3",
    "avg_pool in=18x6x6 kernel=2x2 stride=2x2 padding=0x0 identity",
    "linear identity: {d} 162",
)
# by name, and the pixels of the images
PIXEL_NETWORKS = {
    "published": (784, PUBLISHED_DECODER, PUBLISHED_ENCODER),
    "dcgan": (3072, DCGAN_DECODER, None),
    "mixed": (72, MIXED_DECODER, MIXED_ENCODER),
}


def pixel_network(name: str, inputs: int, outputs: int, draw: Callable[..., Tensor]) -> Network:
    """A decoder (more outputs than inputs) or encoder of that name; ``draw(*shape)`` is normal."""
    pixels, decoder, encoder = PIXEL_NETWORKS[name]
    layers = decoder if inputs < outputs else encoder
    if layers is None or pixels != max(inputs, outputs):
        raise ValueError(f"network {name!r} has {pixels} pixels, got {inputs} and {outputs}")
    return _network(layers, min(inputs, outputs), draw)


def published_decoder(latents: int = 64, *, dtype=torch.float32, seed: int = 0) -> Network:
    """The decoder of Kuzina et al. 2022: 26.1 MFLOP a gradient."""
    return pixel_network("published", latents, 784, _normal(dtype, seed))


def dcgan_decoder(latents: int = 128, *, dtype=torch.float32, seed: int = 0) -> Network:
    """4x4x256 to 3x32x32, its normalisation folded into the weights."""
    return pixel_network("dcgan", latents, 3072, _normal(dtype, seed))


def _normal(dtype: torch.dtype, seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator(device="cpu").manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator, device="cpu", dtype=torch.float64)
        return drawn.to(default_device(), dtype)

    return draw


def _network(layers: Sequence[str], latents: int, draw: Callable[..., Tensor]) -> Network:
    """Weights of variance 2 over the inputs of an output, small biases."""
    weights: list[Tensor] = []
    biases: list[Tensor | None] = []
    texts: list[str] = []
    for layer in layers:
        text, _, sizes = layer.format(d=latents).partition(": ")
        texts.append(text)
        if not sizes:  # it has no weights
            weights.append(draw(0))
            biases.append(None)
            continue
        out, *rest = map(int, sizes.split())
        shape, fan_in = _weight_shape(text, out, rest)
        weights.append(draw(*shape) * (2 / fan_in) ** 0.5)
        biases.append(0.1 * draw(out))
    return Network(weights, biases, texts)


def _weight_shape(text: str, out: int, rest: list[int]) -> tuple[tuple[int, ...], float]:
    """Of a layer with ``out`` outputs; and how many inputs an output sums over, about."""
    if text.startswith("linear"):
        return (out, *rest), rest[0]
    layer = parse_layer(text, (1, 1, *rest))
    each, taps = layer.in_shape[0] // layer.groups, math.prod(rest)
    if layer.kind == "conv":
        return (out, each, *rest), each * taps
    return (layer.in_shape[0], out // layer.groups, *rest), each * taps / math.prod(layer.stride)

"""Random stacks of layers, of every kind and the sizes that break things, from a seed."""

import math
import random

import torch

from vaefast.types import Layer, Network, parse_layer

ACTIVATIONS = ("relu", "tanh", "leaky_relu:0.1", "sigmoid", "identity", "elu:0.7", "silu")
CHANNELS = (1, 2, 3, 5, 8, 17, 33)
MOST = 3000  # features of a layer


def stack(seed: int, dtype: torch.dtype = torch.float64) -> Network:
    """One to five layers; images of one or two axes, residual sums where widths allow."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)

    def draw(*shape):
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        return (drawn / max(math.prod(shape[1:]), 1) ** 0.5).to(dtype)

    axes = rng.choice((1, 2, 2))
    shape = (rng.choice(CHANNELS), *(rng.choice((1, 3, 4, 6)) for _ in range(axes)))
    weights, biases, layers, shapes = [], [], [], [shape]

    def add(weight, channels, text, out_shape):
        residual = [k - 1 for k, s in enumerate(shapes) if math.prod(s) == math.prod(out_shape)]
        around = f" +{rng.choice(residual)}" if residual and rng.random() < 0.5 else ""
        weights.append(weight)
        biases.append(draw(channels) if channels and rng.random() < 0.7 else None)
        layers.append(f"{text}{around} {rng.choice(ACTIVATIONS)}")
        shapes.append(out_shape)

    if rng.random() < 0.4:
        latents = rng.choice((3, 8, 40))
        features, shapes[0] = math.prod(shape), (latents,)
        add(draw(features, latents), features, "linear", shape)
    for _ in range(rng.randint(1, 4)):
        if (made := _layer(rng, draw, _viewed(rng, shapes[-1]))) is not None:
            add(*made)
    if rng.random() < 0.4 or not layers:
        width = rng.choice((1, 5, 33))
        add(draw(width, math.prod(shapes[-1])), width, "linear", (width,))
    return Network(weights, biases, layers)


def _viewed(rng, shape):
    """Now and then the same features in another shape."""
    if rng.random() < 0.8 and len(shape) > 1:
        return shape
    features = math.prod(shape)
    height = rng.choice([n for n in range(1, 7) if features % n == 0])
    return (features // height, height, 1) if rng.random() < 0.5 else (features // height, height)


def _layer(rng, draw, shape):
    """A layer on images of that shape: weight, channels with biases, text, output shape."""
    axes, channels = len(shape) - 1, shape[0]

    def sizes(*choices):
        return [rng.choice(choices) for _ in range(axes)]

    def joined(values):
        return "x".join(map(str, values))

    kind = rng.choice(("conv", "conv", "conv_transpose", "avg_pool", "upsample_nearest"))
    kernel, stride, padding = sizes(1, 2, 3, 4), sizes(1, 1, 2, 3), sizes(0, 1, 2)
    text, weight, out = f"{kind} in={joined(shape)}", draw(0), 0
    if kind == "avg_pool":
        padding = [min(p, k // 2) for p, k in zip(padding, kernel)]
        text += f" kernel={joined(kernel)} stride={joined(stride)} padding={joined(padding)}"
    elif kind == "upsample_nearest":
        text += f" scale={joined(sizes(1, 2, 3))}"
    else:
        groups = rng.choice([g for g in range(1, channels + 1) if channels % g == 0])
        groups = groups if rng.random() < 0.3 else 1
        out, dilation = groups * rng.choice((1, 2, 3, 20)), sizes(1, 1, 2)
        text += f" stride={joined(stride)} padding={joined(padding)} dilation={joined(dilation)}"
        ends = (out, channels // groups) if kind == "conv" else (channels, out // groups)
        weight = draw(*ends, *kernel)
        if kind == "conv_transpose":
            over = [rng.randrange(max(s, d)) for s, d in zip(stride, dilation)]
            text += f" output_padding={joined(over)}"
        text += f" groups={groups}"
    layer: Layer = parse_layer(f"{text} identity", tuple(weight.shape))
    fits = min(layer.out_shape) > 0 and layer.out_features <= MOST
    return (weight, out, text, layer.out_shape) if fits else None

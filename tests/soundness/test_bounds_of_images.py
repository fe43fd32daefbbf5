"""The same bounds of convolutional networks, whose rows lie over receptive fields.

`make soundness` runs VAEFAST_SOUNDNESS=80 times the balls of the suite's form.
"""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from balls import TIMES, checked, draw, trained
from torch import Tensor

from vaefast.types import Network

KINDS = ("relu", "leaky_relu:0.2", "tanh", "softplus", "silu", "elu:1", "mixed")
WEIGHTS = ("random", "trained", "signs", "aligned", "background")


def made(kind: str, weights: str, seed: int) -> Network:
    """Two or three layers of images, among them strided, padded, dilated and pooled, and a linear.

    "background": biases near 0, which are what units see of the first, black input.
    """
    rng = random.Random(f"images {kind} {weights} {seed}")
    shape, layers, matrices, biases = (rng.randint(1, 2), rng.randint(5, 7), 6), [], [], []
    for _ in range(rng.randint(2, 3)):
        name = rng.choice(KINDS[:-1]) if kind == "mixed" else kind
        text, weight, shape = _layer(rng, shape, name)
        layers.append(text)
        matrices.append(weight)
        biases.append(draw(rng.getrandbits(30), len(weight)) if weight.numel() else None)
    features, m = shape[0] * shape[1] * shape[2], 2 * rng.randint(1, 2)
    layers.append("linear identity")
    matrices.append(draw(rng.getrandbits(30), m, features) / features**0.5)
    biases.append(draw(rng.getrandbits(30), m))
    size = 0.01 if weights == "background" else 0.3
    biases = [None if b is None else size * b for b in biases]
    if weights == "signs":
        matrices, biases = [w.sign() for w in matrices], [None] * len(biases)
    if weights == "aligned":
        matrices = [w.abs() for w in matrices]
    net = Network(matrices, biases, layers)
    return trained(net, seed) if weights == "trained" else net


def _layer(
    rng: random.Random, shape: tuple[int, int, int], name: str
) -> tuple[str, Tensor, tuple[int, int, int]]:
    """(text, weight, shape of the output)."""
    channels, *sides = shape
    size = "x".join(map(str, shape))
    if rng.random() < 0.2 and min(sides) > 3:
        out = (channels, sides[0] // 2, sides[1] // 2)
        text = f"avg_pool in={size} kernel=2x2 stride=2x2 padding=0x0 {name}"
        return text, torch.empty(0).double(), out
    stride, padding = rng.choice([1, 2]), rng.choice([0, 1, 2])
    if min(sides) + 2 * padding < 3:
        padding = 1
    wide = rng.randint(1, 3)
    weight = draw(rng.getrandbits(30), wide, channels, 3, 3) / (9 * channels) ** 0.5
    out = (wide, *((n + 2 * padding - 3) // stride + 1 for n in sides))
    text = f"conv in={size} stride={stride}x{stride} padding={padding}x{padding} {name}"
    return text, weight, out


@pytest.mark.parametrize("kind", KINDS)
def test_no_ball_has_a_point_beyond_a_bound(kind):
    cases = itertools.product(WEIGHTS, range(TIMES))
    balls = checked((made(kind, weights, seed), 10 * seed) for weights, seed in cases)
    assert balls >= len(WEIGHTS) * TIMES
    print(f"{kind}, images: {balls} balls")

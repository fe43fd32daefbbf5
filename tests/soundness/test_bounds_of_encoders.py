"""Deterministic bounds of networks over balls: none is ever exceeded.

`make soundness` runs VAEFAST_SOUNDNESS=80 times the balls of the suite's form.
"""

from __future__ import annotations

import itertools
import random

import pytest
from balls import POINTS, TIMES, checked, draw, trained
from torch import Tensor

from vaefast.types import Network

KINDS = (
    "relu",
    "leaky_relu:0.2",
    "elu:0.7",
    "elu:1.3",
    "tanh",
    "sigmoid",
    "softplus",
    "silu",
    "gelu",
    "gelu_tanh",
    "maxmin",
    "hardswish",
    "mish",
    "selu",
    "exp_half",
    "clamp:-0.5:0.8",
    "mixed",
)
WEIGHTS = ("random", "trained", "signs", "aligned", "steep")


def made(kind: str, weights: str, seed: int) -> Network:
    """One to three hidden layers of 2 to 16 units."""
    rng = random.Random(f"{kind} {weights} {seed}")
    hidden = [2 * rng.randint(1, 8) for _ in range(rng.randint(1, 3))]
    widths = [rng.randint(1, 12), *hidden, 2 * rng.randint(1, 3)]
    kinds = [rng.choice(KINDS[:-1]) if kind == "mixed" else kind for _ in hidden]
    sizes = list(itertools.pairwise(widths))
    matrices = [draw(rng.getrandbits(30), n, m) / m**0.5 for m, n in sizes]
    biases: list[Tensor | None] = [0.5 * draw(rng.getrandbits(30), n) for _, n in sizes]
    if weights == "signs":  # pre-activations of 0, copies of units, saturation
        matrices, biases = [w.sign() for w in matrices], [None] * len(sizes)
    if weights == "aligned":  # nothing cancels, so that bounds are reached
        matrices = [w.abs() for w in matrices]
    if weights == "steep":
        matrices = [4.0 * w for w in matrices]
    net = Network.mlp(matrices, biases, ",".join([*kinds, "identity"]))
    return trained(net, seed) if weights == "trained" else net


@pytest.mark.parametrize("kind", KINDS)
def test_no_ball_has_a_point_beyond_a_bound(kind):
    """All kinds and repetitions of `make soundness` together are more than 100,000 balls."""
    cases = itertools.product(WEIGHTS, range(TIMES))
    balls = checked((made(kind, weights, seed), 10 * seed) for weights, seed in cases)
    assert balls >= len(WEIGHTS) * TIMES
    print(f"{kind}: {balls} balls of {2 * POINTS} points")

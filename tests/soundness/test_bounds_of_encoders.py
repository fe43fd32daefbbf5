"""Deterministic bounds of networks over balls: none is ever exceeded.

`make soundness` runs VAEFAST_SOUNDNESS=80 times the balls of the suite's form.
"""

from __future__ import annotations

import itertools
import os
import random

import pytest
import torch
from torch import Tensor

from vaefast.functional import network as passes
from vaefast.functional.displacement import FORMS, Displacement
from vaefast.functional.displacement_intervals import intervals
from vaefast.ops.net_displacement_bound import displacement
from vaefast.runtime.backends import supports
from vaefast.types import Network

TIMES = int(os.environ.get("VAEFAST_SOUNDNESS", "1"))
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
POINTS = 24  # of a ball, and as many after ascent
MOST = 24 if TIMES > 1 else 6  # balls of one batch
ROUND_OFF = 1e-12


def draw(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


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


def trained(net: Network, seed: int) -> Network:
    """Some steps towards random outputs."""
    weights = [w.clone().requires_grad_() for w in net.weights]
    x, y = draw(seed, 32, net.in_features), draw(seed + 1, 32, net.out_features)
    optimiser = torch.optim.Adam(weights, 0.03)
    for _ in range(25):
        optimiser.zero_grad()
        (passes.evaluate(x, net._replace(weights=weights)) - y).square().mean().backward()
        optimiser.step()
    return net._replace(weights=[w.detach() for w in weights])


def balls(net: Network, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Centres, the first at 0 where kinks are, radii over seven decades, and scales.

    The batch is 1, as wide as a layer, or the largest.
    """
    rng = random.Random(f"{net.layers} {seed}")
    B = rng.choice([1, net.in_features, len(net.weights[0]), *[MOST] * 4])
    x = draw(seed + 2, B, net.in_features)
    x[0] = 0.0
    exponent = torch.linspace(-6.0, 0.7, B)[torch.randperm(B, generator=_generator(seed))]
    return x, 10.0 ** exponent.double(), 0.1 + draw(seed + 3, B, net.out_features).abs()


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(x: Tensor, radius: Tensor, moved, seed: int) -> Tensor:
    """On the spheres and inside, then where ascent on the displacement leads from there."""
    v = torch.nn.functional.normalize(draw(seed + 4, len(x), POINTS, x.shape[1]), dim=2)
    v[:, ::4] *= torch.rand(v[:, ::4].shape[:2], generator=_generator(seed)).double()[..., None]
    size = (1.0 - 1e-9) * radius[:, None, None]
    start = x[:, None] + size * v
    there = start
    for _ in range(6):
        there = there.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(moved(there).norm(dim=2).sum(), there)
        delta = there.detach() - x[:, None]
        delta = delta + 0.7 * size * torch.nn.functional.normalize(gradient, dim=2)
        there = x[:, None] + delta * (size / delta.norm(dim=2, keepdim=True)).clamp(max=1.0)
    return torch.cat((start, there.detach()), 1)


def violations(net: Network, seed: int) -> dict[str, int]:
    """How many balls have a point outside each bound."""
    x, radius, scale = balls(net, seed)
    base = passes.evaluate(x, net)[:, None]

    def moved(where: Tensor) -> Tensor:
        out = passes.evaluate(where.flatten(0, 1), net).unflatten(0, where.shape[:2])
        return (out - base) * scale[:, None]

    where = points(x, radius, moved, seed)
    y = moved(where)
    engine, two = Displacement(x, net, scale), Displacement(x, net, scale, groups=2)
    found = {"balls": len(x)}
    most, halves = y.norm(dim=2).amax(1), y.unflatten(2, (2, -1)).norm(dim=3).amax(1)
    for form in FORMS:
        above = most > engine.bound(radius, form)[:, 0]
        above |= (halves > two.bound(radius, form)).any(1)
        found[form] = int(above.sum())
    if supports("net_displacement_bound", "cpp"):
        own = displacement(x, net, scale, 2, backend="cpp").bound(radius, "affine")
        found["affine, C++"] = int((halves > own).any(1).sum())
    Q = engine.ellipsoid(radius)[:, 0]
    floor = 1e-14 * Q.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] * torch.eye(Q.shape[1])
    inside = (torch.linalg.solve(Q + floor.double(), y.mT).mT * y).sum(2)
    found["ellipsoid"] = int((inside > 1.0 + 1e-6).any(1).sum())
    found["pre-activations"] = int(_outside(engine, net, radius, where).sum())
    return found


def _outside(engine: Displacement, net: Network, radius: Tensor, where: Tensor) -> Tensor:
    walk, n = engine.walk, len(radius)
    found, tape = intervals(walk, slice(0, n), radius), passes.forward(where.flatten(0, 1), net)
    outside = torch.zeros(n, dtype=torch.bool)
    for index, layer_map in enumerate(walk.maps):
        if layer_map.curve is None:
            continue
        low, high, _ = found.units(index)
        start = walk.anchors(index, slice(None))[:, None]
        there = layer_map.units(tape.pre[index]).unflatten(0, where.shape[:2])
        u, room = there - start, ROUND_OFF * (1.0 + there.abs() + start.abs())
        beyond = (u > high[:, None] + room) | (u < low[:, None] - room)
        outside |= beyond.any(2).any(1)
    return outside


@pytest.mark.parametrize("kind", KINDS)
def test_no_ball_has_a_point_beyond_a_bound(kind):
    """All kinds and repetitions of `make soundness` together are more than 100,000 balls."""
    total: dict[str, int] = {}
    for weights, seed in itertools.product(WEIGHTS, range(TIMES)):
        for name, count in violations(made(kind, weights, seed), 10 * seed).items():
            total[name] = total.get(name, 0) + count
    checked = total.pop("balls")
    assert checked >= len(WEIGHTS) * TIMES
    assert not any(total.values()), f"of {checked} balls: {total}"
    print(f"{kind}: {checked} balls of {2 * POINTS} points")

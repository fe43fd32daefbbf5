"""Balls around inputs of networks, and the points of them that lie beyond a bound."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable

import torch
from torch import Tensor

from vaefast.functional import network as passes
from vaefast.functional.displacement import FORMS, Displacement
from vaefast.functional.displacement_intervals import intervals
from vaefast.ops.net_displacement_bound import displacement
from vaefast.runtime.backends import supports
from vaefast.types import Network

TIMES = int(os.environ.get("VAEFAST_SOUNDNESS", "1"))
POINTS = 24  # of a ball, and as many after ascent
MOST = 24 if TIMES > 1 else 6  # balls of one batch
ROUND_OFF = 1e-12


def draw(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


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
    wide = net.layer(0).out_features
    B = rng.choice([1, net.in_features, wide, *[MOST] * 4])
    if not net.is_mlp and TIMES == 1:
        B = min(B, MOST)
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
    if supports("net_displacement_bound", "cpp", layers=net.layers):
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


def checked(networks: Iterable[tuple[Network, int]]) -> int:
    """How many balls around networks, each with its seed, were looked at; no bound is exceeded."""
    total: dict[str, int] = {}
    for net, seed in networks:
        for name, count in violations(net, seed).items():
            total[name] = total.get(name, 0) + count
    balls = total.pop("balls")
    assert not any(total.values()), f"of {balls} balls: {total}"
    return balls

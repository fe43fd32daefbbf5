"""Where an attack starts, with one random stream per input and restart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast import philox
from vaefast.attacks.ball import Ball
from vaefast.functional import l1
from vaefast.philox import Use

__all__ = [
    "START_BYTES",
    "Stream",
    "gaussian",
    "radius_uniform",
    "uniform_in_ball",
    "uniform_in_cube",
    "zero",
]

START_BYTES = 96  # peak bytes a random number takes while it is drawn, as int64 and float64


@dataclass(frozen=True)
class Stream:
    """Which random numbers the rows draw: a pure function of seed, input and restart.

    Args:
        seed: 64-bit seed.
        index: [N] int64, the global number of each row's input.
        restart: [N] int64, the restart of each row.
    """

    seed: int
    index: Tensor
    restart: Tensor

    def normal(self, count: int, use: Use) -> Tensor:
        """[N, count] float64 standard normals."""
        return philox.normal(count, seed=self.seed, index=self.index, lane=self.restart, use=use)

    def uniform(self, count: int, use: Use) -> Tensor:
        """[N, count] float64 in (0, 1)."""
        return philox.uniform(count, seed=self.seed, index=self.index, lane=self.restart, use=use)


def uniform_in_ball(ball: Ball, stream: Stream) -> Tensor:
    """Points uniform in the ball around x, then clipped to the box: [N, *event] like x.

    ℓ∞: x + eps·(2u − 1) per element. ℓ2: x plus a normal direction of length eps·u^(1/D), which
    is uniform in volume. ℓ1: signed exponentials over their sum and another one's, likewise.
    """
    pixels = ball.x.shape[1:].numel()
    radius = ball.eps.double().unsqueeze(1)
    if ball.norm == "l1":
        entries, rest = stream.uniform(pixels, Use.START), stream.uniform(1, Use.RADIUS)
        delta = radius * l1.uniform(entries, rest)
    elif ball.norm == "linf":
        delta = radius * (2.0 * stream.uniform(pixels, Use.START) - 1.0)
    else:
        direction = stream.normal(pixels, Use.START)
        length = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        root = torch.exp(torch.log(stream.uniform(1, Use.RADIUS)) / pixels)  # pow: not row by row
        delta = radius * root * direction / length
    return ball.project_(_displaced(ball.x, delta))


def radius_uniform(ball: Ball, stream: Stream) -> Tensor:
    """x plus a normal direction of length eps·u, clipped to the box: denser near x (ℓ2)."""
    direction = stream.normal(ball.x.shape[1:].numel(), Use.START)
    length = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
    radius = ball.eps.double().unsqueeze(1) * stream.uniform(1, Use.RADIUS)
    return ball.project_(_displaced(ball.x, radius * direction / length))


def uniform_in_cube(ball: Ball, stream: Stream) -> Tensor:
    """x + eps·(2u − 1), in ℓ2 shortened to length eps, clipped to the box."""
    entries = stream.uniform(ball.x.shape[1:].numel(), Use.START)
    delta = ball.eps.double().unsqueeze(1) * (2.0 * entries - 1.0)
    return ball.project_(_displaced(ball.x, delta))


def gaussian(ball: Ball, stream: Stream, *, std: float) -> Tensor:
    """Points N(x, std² I) clipped to the box but not projected to the ball: [N, *event] like x."""
    delta = std * stream.normal(ball.x.shape[1:].numel(), Use.START)
    return ball.clip_(_displaced(ball.x, delta))


def zero(ball: Ball, stream: Stream) -> Tensor:
    """x itself: [N, *event]."""
    return ball.x.clone()


def _displaced(x: Tensor, delta: Tensor) -> Tensor:
    return (x.double() + delta.reshape(x.shape)).to(x.dtype)

"""Margins from samples of the decoder at many latents, not at μ alone.

The draws of :mod:`vaefast.certify.local` see the decoder from one posterior and assume the worst of
all others. Here one pool of draws is re-weighted for a grid of posteriors, the anchors, that the
encoder's ellipsoid holds; between them the probability of a miss is interpolated, and only the
directions without anchors are left to Neyman and Pearson.

Source: mathematics.md 8.6.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import philox
from vaefast.certify.cells import Ellipsoid, anchors, covered
from vaefast.certify.heads import heads
from vaefast.certify.local import ALONE
from vaefast.certify.pool import Levels, Pool, Spread
from vaefast.certify.sampling import AtInput, at_input, within
from vaefast.functional.displacement import Displacement
from vaefast.functional.eigenvalues import eigenvalue
from vaefast.models.prepare import Prepared
from vaefast.philox import Use
from vaefast.runtime import memory, numerics

__all__ = ["AnchorMargins", "Plan", "anchor_margins", "require_anchors"]

LATE = -1
PILOT = 10_000  # draws that choose the radii, and nothing else
HALVINGS = 9
RADII = tuple(1.08 * 0.995**k for k in range(64))  # of the pilot's, bisected
AXES = (3, 2, 4)  # that the pilot chooses among, tried in this order
START = 2.5  # the quantile up to which the pilot's draws spread
MOST = 4.0  # the quantile above which no radius is tried
HELD = 0.9  # of √D: from there on further radii are tried
NEAR = 1e-3  # a radius at which the encoder is affine, for the pilot's directions


class Plan(NamedTuple):
    """What was fixed before any draw: draws, error probability per input, seed; and until when.

    No input's draws begin after ``deadline``, in seconds of the monotonic clock. Nothing else looks
    at the clock: the radii and the level of an input whose draws are made are what they would be.
    """

    samples: int
    alpha: float
    seed: int
    deadline: float = math.inf

    @property
    def late(self) -> bool:
        return time.monotonic() > self.deadline


class AnchorMargins(NamedTuple):
    """Margins [B], the probability at x itself that the same draws show, and the draws; float64.

    0 draws: the pilot promised no radius, and nothing more was drawn. −1: the time was over before.
    """

    margin: Tensor
    p_lower: Tensor
    samples: Tensor


def require_anchors(prepared: Prepared) -> None:
    """Refuse another device than the CPU.

    Raises:
        ValueError: with the way out.
    """
    if prepared.x.device.type != "cpu":
        raise ValueError('method "anchors" runs on the CPU; move model and x there or take "local"')


def anchor_margins(prepared: Prepared, r: Tensor, plan: Plan) -> AnchorMargins:
    """For r [B]; 0 where nothing is certified, NaN where the input is not finite."""

    def run(part: Prepared) -> tuple[Tensor, ...]:
        own, limits = at_input(part.maps, part.x), r[part.gather]
        encoder = _Encoder(part, own.std)
        found = [
            _Input(
                part, AtInput(*(t[i : i + 1] for t in own)), limits[i], i, plan, encoder
            ).certify()
            for i in range(len(part.x))
        ]
        columns = ([row[k] for row in found] for k in range(3))
        return tuple(torch.tensor(column, dtype=torch.float64, device="cpu") for column in columns)

    maps = prepared.maps
    cost = 4 * maps.mean.bytes_per_row(prepared.itemsize, 1)
    with numerics.products(prepared.x.device, "ieee"):
        return AnchorMargins(*prepared.rows(run, cost, max(plan.samples, ALONE), generic=True))


class _Encoder:
    """Where balls around the inputs of a batch move q(z|x), in whitened coordinates."""

    def __init__(self, part: Prepared, std: Tensor) -> None:
        self._heads = heads(part.maps)
        x = part.x.flatten(1)
        self._nets = [Displacement(x, h.net, h.scale(std), h.groups) for h in self._heads]

    def reach(self, radius: float, row: int) -> tuple[Tensor, float]:
        """Q [d, d] float64 with y yᵀ ≼ Q of every whitened mean within reach; and E of log σ."""
        ball, rows = (
            torch.tensor([radius], dtype=torch.float64, device="cpu"),
            torch.tensor([row], dtype=torch.int64, device="cpu"),
        )
        found = [net.ellipsoid(ball, rows)[0] for net in self._nets]
        scale = float(eigenvalue(found[-1][-1]).sqrt()) if self._heads[-1].factor else 0.0
        return found[0][0], scale * (1 + 1e-9)


@dataclass(frozen=True)
class _Input:
    """One input of a batch.

    Args:
        part: the batch.
        own: q(z|x) and the centre, one row each.
        r: of this input.
        row: its place in the batch.
        plan: as given.
        encoder: of the batch.
    """

    part: Prepared
    own: AtInput
    r: Tensor
    row: int
    plan: Plan
    encoder: _Encoder

    def certify(self) -> tuple[float, float, int]:
        """The margin, p_lower and the draws behind them."""
        given = (*self.own, self.r, 1.0 / self.own.std)
        if not all(bool(t.isfinite().all()) for t in given[:-1]):
            return torch.nan, torch.nan, 0
        if self.plan.late:
            return 0.0, 0.0, LATE
        near = self._ellipsoid(NEAR, max(AXES))
        if not bool(given[-1].isfinite().all()) or near is None:
            return 0.0, 0.0, 0
        longest = max(float(near.lengths[0]), 1e-12)
        start = near._replace(lengths=near.lengths * (START / longest))
        pilot = self._draw(_spread(start), min(PILOT, self.plan.samples), Use.PILOT)
        radius, axes = self._proposed(pilot, NEAR * MOST / longest)
        if radius == 0.0:
            return 0.0, 0.0, 0
        if self.plan.late:
            return 0.0, 0.0, LATE
        tried = (self._ellipsoid(radius * share, axes) for share in RADII)
        widest = next(ellipsoid for ellipsoid in tried if ellipsoid is not None)
        levels = Levels.of(len(RADII) * anchors(widest), self.plan.alpha)
        pool = self._draw(_spread(widest), self.plan.samples, Use.ANCHOR)
        bounds = partial(pool.miss_bounds, levels=levels)
        origin = torch.zeros_like(self.own.mean, dtype=torch.float64)
        return self._found(radius, axes, bounds), 1.0 - float(bounds(origin)), pool.samples

    def _found(self, radius: float, axes: int, bounds: Callable[[Tensor], Tensor]) -> float:
        """The largest radius of a bisection that holds; all of them count in the level."""
        found, low, high = 0.0, 0, len(RADII)
        while low < high:
            middle = (low + high) // 2
            ellipsoid = self._ellipsoid(radius * RADII[middle], axes)
            if ellipsoid is not None and covered(ellipsoid, bounds):
                found, high = radius * RADII[middle], middle
            else:
                low = middle + 1
        return found

    def _proposed(self, pilot: Pool, top: float) -> tuple[float, int]:
        """As :meth:`_chosen`, up to √D first, of D entries of x, and further where that holds.

        A unit that is dead at x lets ``top`` be any radius, far beyond the unit's kink.
        """
        near = math.sqrt(self.part.pixels)
        found = self._chosen(pilot, min(top, near))
        if top > near and found[0] > HELD * near:
            found = max(found, self._chosen(pilot, top))
        return found

    def _chosen(self, pilot: Pool, top: float) -> tuple[float, int]:
        """The radius and the number of axes that promise most.

        The largest radius that these draws, taken for as many as there will be, would show.
        """
        safe, fail, best = 0.0, top, AXES[0]
        copies = self.plan.samples / pilot.samples
        for _ in range(HALVINGS):
            radius = 0.5 * (safe + fail)
            reach = self.encoder.reach(radius, self.row)
            held = False
            for axes in sorted(AXES, key=lambda a: a != best):
                ellipsoid = _cut(reach, axes)
                if ellipsoid is None:
                    break
                levels = Levels.of(len(RADII) * anchors(ellipsoid), self.plan.alpha)
                bounds = partial(pilot.miss_bounds, levels=levels, copies=copies)
                if held := covered(ellipsoid, bounds):
                    best = axes
                    break
            safe, fail = (radius, fail) if held else (safe, radius)
        return safe, best

    def _ellipsoid(self, radius: float, axes: int) -> Ellipsoid | None:
        return _cut(self.encoder.reach(radius, self.row), axes)

    def _draw(self, spread: Spread, samples: int, use: Use) -> Pool:
        """Decode so many draws and keep the misses."""
        maps, d = self.part.maps, self.own.mean.shape[1]
        index = self.part.index[self.row : self.row + 1]
        cost = maps.pixels.bytes_per_row(self.own.mean.element_size(), 1) + 256 * d
        misses = []
        for part in memory.row_chunks(samples, cost, memory.cached(1, self.own.mean)):
            steps = torch.arange(part.start, part.stop, device="cpu")
            eta = philox.normal(
                d + 1,
                seed=self.plan.seed,
                index=index.expand(len(steps)),
                step=steps,
                use=use,
                dtype=torch.float64,
            )
            z = spread.draws(eta)
            latent = self.own.mean + self.own.std * z.to(self.own.mean.dtype)
            misses.append(z[~within(maps, latent, self.own.centre, self.r)])
        return Pool(spread, torch.cat(misses), samples)


def _cut(reach: tuple[Tensor, float], axes: int) -> Ellipsoid | None:
    """None where the encoder has no bound."""
    Q, scale = reach
    if not bool(Q.isfinite().all()) or not math.isfinite(scale):
        return None
    return Ellipsoid.of(Q, axes, scale)


def _spread(ellipsoid: Ellipsoid) -> Spread:
    """For the anchors of all that are no larger."""
    return Spread.along(ellipsoid.unit, ellipsoid.lengths[:-1])

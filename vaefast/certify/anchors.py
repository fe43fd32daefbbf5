"""Margins from samples of the decoder at many latents, not at μ alone.

The draws of :mod:`vaefast.certify.local` see the decoder from one posterior and assume the worst of
all others. Here one pool of draws is re-weighted for a grid of posteriors, the anchors, that the
encoder's ellipsoid holds; between them the probability of a miss is interpolated, and only the
directions without anchors are left to Neyman and Pearson.

Source: mathematics.md 8.6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import philox
from vaefast.certify.cells import Ellipsoid, anchors, centres, covered
from vaefast.certify.heads import heads
from vaefast.certify.local import ALONE
from vaefast.certify.pool import Pool, Spread, level_of
from vaefast.certify.sampling import AtInput, at_input, within
from vaefast.functional.displacement import Displacement
from vaefast.models.prepare import Prepared
from vaefast.philox import Use
from vaefast.runtime import memory, numerics

__all__ = ["AnchorMargins", "Plan", "anchor_margins", "require_anchors"]

PILOT = 10_000  # draws that choose the radii, and nothing else
HALVINGS = 9
RADII = (1.03, 1.0, 0.97, 0.93, 0.88, 0.8)  # of the pilot's, tried in this order
AXES = (3, 2, 4)  # that the pilot chooses among, tried in this order
START = 2.5  # the quantile up to which the pilot's draws spread
MOST = 4.0  # the quantile above which no radius is tried
NEAR = 1e-3  # a radius at which the encoder is affine, for the pilot's directions


class Plan(NamedTuple):
    """What was fixed before any draw: draws, error probability per input, seed."""

    samples: int
    alpha: float
    seed: int


class AnchorMargins(NamedTuple):
    """Margins [B], the probability at x itself that the same draws show, and the draws; float64.

    0 draws: the pilot promised no radius, and nothing more was drawn.
    """

    margin: Tensor
    p_lower: Tensor
    samples: Tensor


def require_anchors(prepared: Prepared) -> None:
    """Refuse a σ whose logarithm is no network's output: its change leaves the ellipsoid.

    Raises:
        ValueError: with the way out.
    """
    if prepared.x.device.type != "cpu":
        raise ValueError('method "anchors" runs on the CPU; move model and x there or take "local"')
    for head in heads(prepared.maps, exact=True):
        if head.dropped:
            raise ValueError(
                f'method "anchors" takes σ = exp of a layer or of a clamp, got "{head.dropped}"; '
                'take method="local"'
            )


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
        x, self._nets = part.x.flatten(1), []
        for head in heads(part.maps, exact=True):
            scale = head.scale(std)
            if head.factor:
                scale[:, -std.shape[1] :] *= 2.0**0.5  # y = [m; √2 e]
            self._nets.append(Displacement(x, head.net, scale))

    def ellipsoid(self, radius: float, row: int) -> Tensor:
        """Q [m, m] float64, y yᵀ ≼ Q for every y within reach."""
        ball, rows = (
            torch.tensor([radius], dtype=torch.float64, device="cpu"),
            torch.tensor([row], dtype=torch.int64, device="cpu"),
        )
        return _beside([net.ellipsoid(ball, rows)[0, 0] for net in self._nets])


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
        Q = self.encoder.ellipsoid(NEAR, self.row)
        if not bool(given[-1].isfinite().all()) or not bool(Q.isfinite().all()):
            return 0.0, 0.0, 0
        near = self._cut(Q, max(AXES))
        longest = max(float(near.lengths[0]), 1e-12)
        start = near._replace(lengths=near.lengths * (START / longest))
        pilot = self._draw(_spread([start]), min(PILOT, self.plan.samples), Use.PILOT)
        top = min(NEAR * MOST / longest, math.sqrt(self.part.pixels))
        radius, axes = self._chosen(pilot, top)
        if radius == 0.0:
            return 0.0, 0.0, 0
        ellipsoids = [self._ellipsoid(radius * share, axes) for share in RADII]
        level = level_of(sum(map(anchors, ellipsoids)), self.plan.alpha)
        pool = self._draw(_spread(ellipsoids), self.plan.samples, Use.ANCHOR)
        origin = torch.zeros(1, self.own.std.shape[1], dtype=torch.float64, device="cpu")
        at_x = pool.miss_bounds(origin, origin[0], level)
        for share, ellipsoid in zip(RADII, ellipsoids, strict=True):
            if covered(ellipsoid, partial(pool.miss_bounds, level=level)):
                return radius * share, 1.0 - float(at_x), pool.samples
        return 0.0, 1.0 - float(at_x), pool.samples

    def _chosen(self, pilot: Pool, top: float) -> tuple[float, int]:
        """The radius and the number of axes that promise most.

        The largest radius that these draws, taken for as many as there will be, would show.
        """
        safe, fail, best = 0.0, top, AXES[0]
        copies = self.plan.samples / pilot.samples
        for _ in range(HALVINGS):
            radius, held = 0.5 * (safe + fail), False
            Q = self.encoder.ellipsoid(radius, self.row)
            for axes in sorted(AXES, key=lambda a: a != best) if bool(Q.isfinite().all()) else ():
                ellipsoid = self._cut(Q, axes)
                level = level_of(len(RADII) * anchors(ellipsoid), self.plan.alpha)
                bounds = partial(pilot.miss_bounds, level=level, copies=copies)
                if held := covered(ellipsoid, bounds):
                    best = axes
                    break
            safe, fail = (radius, fail) if held else (safe, radius)
        return safe, best

    def _ellipsoid(self, radius: float, axes: int) -> Ellipsoid:
        return self._cut(self.encoder.ellipsoid(radius, self.row), axes)

    def _cut(self, Q: Tensor, axes: int) -> Ellipsoid:
        return Ellipsoid.of(Q, self.own.std.shape[1], axes)

    def _draw(self, spread: Spread, samples: int, use: Use) -> Pool:
        """Decode so many draws and keep the misses."""
        maps, d = self.part.maps, self.own.mean.shape[1]
        index = self.part.index[self.row : self.row + 1]
        cost = maps.pixels.bytes_per_row(self.own.mean.element_size(), 1) + 256 * d
        misses = []
        for part in memory.row_chunks(samples, cost, memory.cached(1, self.own.mean)):
            steps = torch.arange(part.start, part.stop, device="cpu")
            eta = philox.normal(
                d,
                seed=self.plan.seed,
                index=index.expand(len(steps)),
                step=steps,
                use=use,
                dtype=torch.float64,
            )
            z = eta @ spread.factor.mT
            latent = self.own.mean + self.own.std * z.to(self.own.mean.dtype)
            misses.append(z[~within(maps, latent, self.own.centre, self.r)])
        return Pool(spread, torch.cat(misses), samples)


def _spread(ellipsoids: list[Ellipsoid]) -> Spread:
    """For the anchors of all of them; the first is the largest."""
    scales = [centres(e) @ e.log_scale.mT for e in ellipsoids]
    widest = float(torch.cat(scales).amax().clamp(min=0.0).exp())
    return Spread.along(ellipsoids[0].mean, ellipsoids[0].lengths[:-1], widest)


def _beside(found: list[Tensor]) -> Tensor:
    """One Q of heads on trunks of their own: diag(Q_m/w, Q_e/(1 − w)) for any w in (0, 1)."""
    if len(found) == 1:
        return found[0]
    longest = [float(torch.linalg.eigvalsh(Q)[-1].clamp(min=1e-300)) ** 0.5 for Q in found]
    shares = [length / sum(longest) for length in longest]
    return torch.block_diag(*(Q / share for Q, share in zip(found, shares, strict=True)))

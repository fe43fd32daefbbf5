"""The methods of ``vaefast.bench.certificates_outside``: radii, costs and what else they say."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

import vaefast as vf
from vaefast import certify
from vaefast.bench import outside_smoothing as smoothing
from vaefast.bench import outside_support as support
from vaefast.bench.certificates import ALPHA, own_radius
from vaefast.certify import local

__all__ = ["METHODS", "Found", "Sizes", "Subject", "found"]

TIMES = (0.5, 2.0, 4.0, 8.0)  # of r, in the curve
SIGMAS = tuple(0.04 * 2 ** (0.5 * k) for k in range(10))  # 0.04 to 0.9
FIRST_TUNED = 1000  # of the images σ is chosen on
JUDGED = 1_000  # draws whose errors are looked at
MOST = 3.0  # no radius of a support set is looked for above it
NAN = float("nan")


class Sizes(NamedTuple):
    """How many images, and draws behind a probability: of the table, the curve, the choice of σ.

    Without images in the curve there is none.
    """

    inputs: int = 16
    draws: int = 50_000
    curve_inputs: int = 8
    curve_draws: int = 10_000
    tuned_inputs: int = 4
    tuned_draws: int = 3_000


class Subject:
    """A model, in float64 too, its images and their r, and those that σ is chosen on."""

    def __init__(self, vae: vf.VAE, x: Tensor, sizes: Sizes) -> None:
        self.vae, self.sizes = vae, sizes
        self.wide = copy.deepcopy(vae).double()
        self.x = x[: sizes.inputs]
        first = min(FIRST_TUNED, len(x) - sizes.tuned_inputs)
        self.tuned = x[first : first + sizes.tuned_inputs]
        self.r, self.tuned_r = (own_radius(vae, part) for part in (self.x, self.tuned))
        self.draw = smoothing.reconstructions(self.wide, posterior=True)
        self.errors = self.error(self.draw, 0.0, sizes.inputs)

    def error(self, draw: smoothing.Draw, sigma: float, n: int) -> Tensor:
        """The median ‖f(x + n) − x‖₂ of draws at each of the first images, [n]."""
        found = []
        for x in self.x[:n].double().split(1):
            generator = torch.Generator(device="cpu").manual_seed(len(found))
            apart = smoothing.smoothed_distances(draw, x, x.flatten(1), sigma, JUDGED, generator)
            found.append(apart.median())
        return torch.stack(found)

    def parts(self) -> Iterator[tuple[tuple[float, ...], int, int]]:
        """Multiples of r, images and draws of the table and of the curve."""
        yield (1.0,), self.sizes.inputs, self.sizes.draws
        if self.sizes.curve_inputs:
            yield TIMES, self.sizes.curve_inputs, self.sizes.curve_draws


class Found(NamedTuple):
    """Of one method at one multiple of r; as ``vaefast.bench.certificates_outside.Row`` has it.

    Args:
        margin: [n].
        error: [n].
        moved: [n].
        starts: [n].
    """

    method: str
    times: float
    margin: Tensor
    seconds: float
    error: Tensor
    alpha: float = 0.0
    sigma: float = NAN
    moved: Tensor | None = None
    starts: Tensor | None = None
    encoder: float = 1.0
    decoder: float = 1.0
    bounds: float = 0.0


def found(subject: Subject, only: Sequence[str] = ()) -> Iterator[Found]:
    """Of all methods or these alone: each in the table first, then in the curve."""
    only = only or METHODS
    yield from _ours(subject, [name for name in OURS if name in only])
    for name in SMOOTHED:
        if name in only:
            yield from _smoothed(subject, name)
    for name, find in SETS.items():
        for times, n, _ in subject.parts() if name in only else ():
            yield from _sets(subject, name, find, times, n)


def _ours(subject: Subject, methods: list[str]) -> Iterator[Found]:
    for times, n, draws in subject.parts():
        for method in methods:
            for t in times:
                yield _own(subject, method, t, n, draws)


def _own(subject: Subject, method: str, t: float, n: int, draws: int) -> Found:
    x, r, start = subject.x[:n], t * subject.r[:n], time.monotonic()
    margin = certify.margin(subject.vae, x, r, method=method, samples=draws, alpha=ALPHA).margin
    seconds = (time.monotonic() - start) / len(margin)
    bounds = float(local.STEPS + local.REFINEMENTS) if method == "local" else NAN
    own = {"decoder": float(draws), "bounds": bounds}
    return Found(method, t, margin, seconds, subject.errors[:n], ALPHA, **own)


class Smoothed(NamedTuple):
    """A way of smoothing.

    Args:
        posterior: whether latents are drawn, or reconstructions are g(μ).
        event: whether the centre is g(μ(x)) and only the majority is asked for.
    """

    posterior: bool
    event: bool


SMOOTHED = {
    "center smoothing": Smoothed(False, False),
    "center smoothing of draws": Smoothed(True, False),
    "smoothed event": Smoothed(True, True),
}


class Smoother:
    """One way of smoothing one model."""

    def __init__(self, subject: Subject, name: str) -> None:
        self.subject, self.kind = subject, SMOOTHED[name]
        self.draw = smoothing.reconstructions(subject.wide, posterior=self.kind.posterior)

    def distances(
        self, x: Tensor, sigma: float, n: int, seed: int, *, guess: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """[n] to the centre, and the centre [1, D]; None where the procedure abstains."""
        generator = torch.Generator(device="cpu").manual_seed(seed)
        centre: Tensor | None = self.fixed(x)
        if not self.kind.event:
            method = smoothing.CenterSmoothing(self.draw, sigma, ALPHA)
            centre = (method.guess if guess else method.centre)(x, generator)
        if centre is None:
            return torch.full((n,), torch.inf, dtype=torch.float64, device="cpu"), None
        apart = smoothing.smoothed_distances(self.draw, x, centre, sigma, n, generator)
        return apart[:, 0], centre

    def fixed(self, x: Tensor) -> Tensor:
        """g(μ(x)) [1, D]."""
        return self.subject.wide.reconstruct(x).detach().flatten(1)

    def radius(self, distances: Tensor, r: float, sigma: float) -> float:
        if self.kind.event:
            hits = int((distances <= r).sum())
            return smoothing.ball(sigma, hits, len(distances), ALPHA, 0.5)
        return smoothing.CenterSmoothing(self.draw, sigma, ALPHA).radius(distances, r)

    def chosen(self, times: tuple[float, ...]) -> dict[float, float]:
        """σ of each multiple: the one whose median radius on the other images is largest."""
        subject, n = self.subject, self.subject.sizes.tuned_draws
        rows = list(zip(subject.tuned.double().split(1), subject.tuned_r.tolist(), strict=True))
        best = dict.fromkeys(times, (-1.0, 0.0))
        for sigma in SIGMAS:
            apart = [
                (self.distances(x, sigma, n, 10**6 + i, guess=True)[0], r)
                for i, (x, r) in enumerate(rows)
            ]
            for t in times:
                radii = _numbers([self.radius(d, t * r, sigma) for d, r in apart])
                best[t] = max(best[t], (float(radii.median()), -sigma))
        return {t: -sigma for t, (_, sigma) in best.items()}


def _smoothed(subject: Subject, name: str) -> Iterator[Found]:
    smoother = Smoother(subject, name)
    sigmas = smoother.chosen((1.0, *TIMES))
    for times, n, draws in subject.parts():
        for sigma in sorted({sigmas[t] for t in times}):
            here = tuple(t for t in times if sigmas[t] == sigma)
            yield from _at_sigma(smoother, name, sigma, here, n, draws)


def _at_sigma(
    smoother: Smoother, name: str, sigma: float, times: tuple[float, ...], n: int, draws: int
) -> Iterator[Found]:
    """Of the multiples that share a σ, from the same draws; each statement is one of its own."""
    subject, drawn, moved, errors = smoother.subject, [], [], []
    start = time.monotonic()
    for i, x in enumerate(subject.x[:n].double().split(1)):
        distances, centre = smoother.distances(x, sigma, draws, i)
        drawn.append(distances)
        apart = NAN if centre is None else float((centre - smoother.fixed(x)).norm())
        moved.append(apart / float(subject.r[i]))
        errors.append(NAN if centre is None else float((centre - x.flatten(1)).norm()))
    seconds = (time.monotonic() - start) / len(drawn)
    error = _numbers(errors)
    if smoother.kind.event:
        error = subject.error(smoother.draw, sigma, n)
    passes = float(draws if smoother.kind.event else smoothing.CenterSmoothing.passes(draws))
    for t in times:
        limits = (t * subject.r[:n]).tolist()
        radii = [smoother.radius(d, r, sigma) for d, r in zip(drawn, limits, strict=True)]
        rest = {"moved": _numbers(moved) / t, "encoder": passes, "decoder": passes}
        yield Found(name, t, _numbers(radii), seconds, error, ALPHA, sigma, **rest)


class Kept(NamedTuple):
    """Of one image: radii at the multiples, the least r that is certified at x alone, bounds."""

    radii: list[float]
    starts: float
    bounds: int


Find = Callable[[support.Encoder, list[float]], Kept]


def _box(encoder: support.Encoder, limits: list[float]) -> Kept:
    box = support.Box(encoder, best=False)
    return Kept([box.radius(r, MOST) for r in limits], box.starts, box.bounds)


def _best_box(encoder: support.Encoder, limits: list[float]) -> Kept:
    box = support.Box(encoder, best=True)
    return Kept([box.radius(r, MOST) for r in limits], box.starts, box.bounds)


def _ellipsoid(encoder: support.Encoder, limits: list[float]) -> Kept:
    sets = support.Ellipsoids(encoder, max(limits))
    return Kept([sets.radius(r, MOST) for r in limits], sets.starts, sets.bounds)


SETS: dict[str, Find] = {
    "support box": _box,
    "support box, best": _best_box,
    "support ellipsoid": _ellipsoid,
}


def _sets(
    subject: Subject, name: str, find: Find, times: tuple[float, ...], n: int
) -> Iterator[Found]:
    kept, start = [], time.monotonic()
    for x, r in zip(subject.x[:n].double().split(1), subject.r[:n].tolist(), strict=True):
        kept.append(find(support.Encoder(subject.wide, x), [t * r for t in times]))
    seconds = (time.monotonic() - start) / len(kept)
    starts = _numbers([one.starts for one in kept]) / subject.r[:n]
    bounds = float(_numbers([float(one.bounds) for one in kept]).median())
    for at, t in enumerate(times):
        margin = _numbers([one.radii[at] for one in kept])
        yield Found(name, t, margin, seconds, subject.errors[:n], starts=starts, bounds=bounds)


OURS = ("local", "anchors")
METHODS = (*OURS, *SMOOTHED, *SETS)


def _numbers(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")

"""The sound local margin: a bound of what an input ball does to q(z|x), against what p tolerates.

Within ‖x' − x‖₂ ≤ R the whitened mean moves by at most Δ(R) and log σ by at most E(R)
(:func:`vaefast.ops.net_displacement_bound`); the probability above ½ is kept where
:func:`vaefast.certify.tolerance.tolerates` says so. The margin is the largest R at which this was
evaluated and held, so that nothing rests on how R was searched for.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.certify.heads import heads, why_not
from vaefast.certify.tolerance import tolerates
from vaefast.functional.displacement import why_affine
from vaefast.geometry.norms import spectral
from vaefast.geometry.points import mean_and_std
from vaefast.models.prepare import Prepared
from vaefast.ops.net_displacement_bound import displacement
from vaefast.runtime import backends, batching

__all__ = [
    "Moved",
    "Posterior",
    "bounds_repeat",
    "form_of",
    "local_margins",
    "moved",
    "quickly_bounded",
    "require_local",
]

OP = "net_displacement_bound"
STEPS = 6  # by the affine form
START = 0.6  # of the first-order margin
POWER = 3.0  # of the radius in the displacement, before two bounds say so
REFINEMENTS = 4  # by the multiplier form, whose evaluations cost ten times as much
IMAGE_START = {"affine": 0.03, "multiplier": 0.12}  # likewise, of convolutions
IMAGE_STEPS = {"affine": 6, "multiplier": 4}
JOINT_STEPS = 3  # by the joint form, which costs ten times as much again
JOINT_GAIN = {False: 1.04, True: 1.5}  # of its margin over the others', of images and of others
REACH = 1.5  # of the first-order margin; no bound of the displacement comes near it
SHADE = 0.998  # of a proposed radius: one that holds is worth more than one that is exact
BYTES = 8 * 4  # per entry of a matrix between two layers
ALONE = 1 << 12  # fills any block: inside same_bits a row is bounded by itself


class Moved(NamedTuple):
    """How far q(z|x) moves within a ball: Δ and E of the tolerance, [b] float64 each."""

    shift: Tensor
    scale: Tensor


class Posterior:
    """Bounds of how q(z|x) moves, at rows that are known, for many radii."""

    def __init__(self, part: Prepared) -> None:
        std = mean_and_std(part.maps, part.x)[1]
        x = part.x.flatten(1)
        self.heads = heads(part.maps)
        self._nets = [displacement(x, h.net, h.scale(std), h.groups) for h in self.heads]

    @property
    def images(self) -> bool:
        """Whether an encoder has layers that are not linear."""
        return any(net.images for net in self._nets)

    def check(self, form: str) -> None:
        """Raise a ValueError where an encoder is too large for the form."""
        for net in self._nets:
            net.check(form)

    def moved(self, radius: Tensor, form: str) -> Moved:
        """For radii [b] float64."""
        shift = scale = torch.zeros_like(radius)
        for head, net in zip(self.heads, self._nets, strict=True):
            bound = list(net.bound(radius, form).unbind(1))
            shift = bound.pop(0) if head.mean else shift
            scale = bound.pop(0) if head.factor else scale
        return Moved(shift, scale)


def form_of(prepared: Prepared, form: str) -> tuple[str, str]:
    """Which of :data:`FORMS` margins rest on, and why it is not the one that was asked for.

    Of images "smaller" is one of the two forms: "multiplier", the smaller at all radii that matter.
    """
    nets = [head.net for head in heads(prepared.maps)]
    if form != "smaller" or all(net.is_mlp for net in nets):
        return form, ""
    reason = next((why for why in map(why_affine, nets) if why), "")
    if reason:
        return "affine", reason
    return "multiplier", "of convolutional encoders it is always the smaller one"


def require_local(prepared: Prepared, method: str) -> None:
    """Refuse an encoder that no bound is known of.

    Raises:
        ValueError: with the reason and the way out.
    """
    reason = why_not(prepared.maps)
    if reason:
        raise ValueError(
            f'"{method}" takes encoders that lower, this one does not: {reason}; '
            'method "whitened" takes any (first order, no certificate)'
        )


def quickly_bounded(prepared: Prepared) -> str:
    """Why :func:`local_margins` would refuse the encoder or take minutes, "" where neither."""
    reason = why_not(prepared.maps)
    if not reason and any(not h.net.is_mlp for h in heads(prepared.maps)):
        return 'the encoder is convolutional; certify.margin(method="local") bounds it in minutes'
    return reason


def bounds_repeat(prepared: Prepared, form: str) -> str:
    """How far the encoder's bounds depend on the batch, as ``reproducible`` of results says it."""
    if form != "affine" or any(
        backends.resolve(OP, None, prepared.x, head.net.layers) == "reference"
        for head in heads(prepared.maps)
    ):
        return batching.reproducible(True, (), prepared.x)  # matrix products of the library
    return batching.reproducible(False, ("net_forward", "net_jacobian_gram", OP), prepared.x)


def local_margins(prepared: Prepared, p_lower: Tensor, form: str) -> Tensor:
    """[B] float64; 0 where nothing is certified.

    Args:
        prepared: the rows, of an encoder that :func:`require_local` lets pass.
        p_lower: [B] float64.
        form: one of :data:`FORMS`.
    """
    margin = torch.where(p_lower.isnan(), torch.nan, 0.0).double()
    rows = (p_lower > 0.5).nonzero()[:, 0]
    if not len(rows):
        return margin
    prepared, p_lower = prepared.at(rows), p_lower[rows]
    q = torch.special.ndtri(p_lower)
    slope = spectral(prepared, whiten=True, bound="estimate")
    most = math.sqrt(prepared.pixels)  # no margin is looked for above the cube's diagonal
    # where the slope is 0 (dead units) first order says nothing; a later kink ends the search
    reach = (REACH * q / slope).nan_to_num(most, most).clamp(0.0, most)
    search = _Search(form, p_lower, q, reach)

    def run(part: Prepared) -> tuple[Tensor, ...]:
        return (search.run(part),)

    (margin[rows],) = prepared.rows(run, _bytes(prepared), ALONE, generic=True)
    return margin


def moved(prepared: Prepared, radius: Tensor, form: str) -> Moved:
    """Bounds of how q(z|x) moves within ‖x' − x‖₂ ≤ radius [B] float64."""

    def run(part: Prepared) -> tuple[Tensor, ...]:
        return Posterior(part).moved(radius[part.gather], form)

    return Moved(*prepared.rows(run, _bytes(prepared), ALONE, generic=True))


class _Search(NamedTuple):
    form: str
    p_lower: Tensor
    q: Tensor
    reach: Tensor

    def run(self, part: Prepared) -> Tensor:
        p, q, reach = (t[part.gather] for t in (self.p_lower, self.q, self.reach))
        posterior = Posterior(part)
        posterior.check(self.form)
        first_order = reach / REACH
        form = "smaller" if self.form == "joint" else self.form
        if posterior.images:
            form, _ = form_of(part, form)
            how = form, IMAGE_START[form], IMAGE_STEPS[form]
            safe = self._climbed(posterior, p, q, first_order, *how)
        else:
            cheap = "affine" if form == "smaller" else form
            safe = self._climbed(posterior, p, q, first_order, cheap, START)
            if form == "smaller":
                start = (safe * torch.maximum(first_order, safe)).sqrt()
                safe = self._refined(posterior, p, q, safe, reach, start, form, REFINEMENTS)
        if self.form == "joint":
            start = JOINT_GAIN[posterior.images] * safe
            safe = self._refined(posterior, p, q, safe, reach, start, "joint", JOINT_STEPS)
        return safe

    def _climbed(
        self,
        posterior: Posterior,
        p: Tensor,
        q: Tensor,
        first_order: Tensor,
        form: str,
        start: float,
        steps: int = STEPS,
    ) -> Tensor:
        """The largest of a few radii that held, from a share ``start`` of first order on.

        The next one is where a power of it through the last two reaches the tolerance.
        """
        safe, fail = torch.zeros_like(p), first_order
        radius, last, power = start * first_order, None, torch.full_like(p, POWER)
        for _ in range(steps):
            bounds = posterior.moved(radius, form)
            held = tolerates(*bounds, p)
            safe = torch.where(held, torch.maximum(safe, radius), safe)
            fail = torch.where(held, fail, torch.minimum(fail, radius))
            over = (bounds.shift / (q * (1.0 - 2.2 * bounds.scale.square()).clamp(min=0.1))).log()
            if last is not None:
                slope = (over - last[1]) / (radius / last[0]).log()
                power = slope.nan_to_num(2.0).clamp(1.0, 4.0)
            last = radius, over
            radius = SHADE * radius * (-over / power).exp()
            inside = (radius > safe) & (radius < fail)
            radius = torch.where(inside, radius, (torch.maximum(safe, fail / 16) * fail).sqrt())
        return safe

    def _refined(
        self,
        posterior: Posterior,
        p: Tensor,
        q: Tensor,
        safe: Tensor,
        reach: Tensor,
        start: Tensor,
        form: str,
        steps: int,
    ) -> Tensor:
        """A few more radii above ``safe``, each but the first proposed by the bounds at the last.

        log(Δ(R)/(R·slope)) is near 0 at small R and grows as a power of it: the next radius is
        where a power through the last point reaches the tolerance.
        """
        first_order = reach / REACH
        fail = torch.maximum(first_order, safe)
        radius = torch.where(safe > 0, torch.minimum(start, fail), 0.5 * fail)
        for _ in range(steps):
            bounds = posterior.moved(radius, form)
            held = tolerates(*bounds, p)
            safe = torch.where(held, radius, safe)
            fail = torch.where(held, fail, torch.minimum(fail, radius))
            radius = _proposed(radius, bounds, q, first_order)
            inside = (radius > safe) & (radius < fail)
            radius = torch.where(inside, radius, 0.5 * (safe + fail))
        return safe


def _proposed(radius: Tensor, bounds: Moved, q: Tensor, first_order: Tensor) -> Tensor:
    """Where Δ(R) = Rs·(1 + cR) would reach what is left of q, with s and c from the last point."""
    left = q * (1.0 - 2.2 * bounds.scale.square())  # about D*, to propose with only
    slope = q / first_order
    excess = (bounds.shift / (slope * radius) - 1.0).clamp(min=1e-6) / radius
    root = ((1.0 + 4.0 * excess * left / slope).sqrt() - 1.0) / (2.0 * excess)
    return SHADE * root


def _bytes(prepared: Prepared) -> int:
    """Of one row: matrices between any two hidden layers, and between these and the outputs.

    Of images the outputs' alone: bounds work on chunks of their own, these share what they keep.
    """
    layers = heads(prepared.maps)[0].net.parsed()
    widths = [layer.out_features for layer in layers]
    if any(layer.kind != "linear" for layer in layers):
        return BYTES * (widths[-1] * sum(widths) + prepared.pixels)
    return BYTES * (sum(a * b for a, b in pairwise([*widths, 0])) + prepared.pixels)

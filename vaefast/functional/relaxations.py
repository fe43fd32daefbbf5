"""What an activation can do on an interval: ranges of its secants, and affine relaxations.

Everything is anchored: φ(a+u) − φ(a) for u in [lo, hi], lo ≤ 0 ≤ hi, elementwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional.secants import Curve

__all__ = ["Affine", "affine", "lipschitz", "moves", "secant_range"]

HALVINGS = 12
FALSE_POSITIONS = 8


class Affine(NamedTuple):
    """φ(a+u) − φ(a) = slope·u + shift ± error for every u of an interval."""

    slope: Tensor
    shift: Tensor
    error: Tensor


def lipschitz(curve: Curve, a: Tensor, hi: Tensor) -> Tensor:
    """sup |φ'| up to a + hi, in a's shape or a scalar."""
    if curve.most is None:  # convex and increasing
        return curve.slope(a + hi)
    return a.new_tensor(max(abs(curve.least), curve.most))


def secant_range(curve: Curve, a: Tensor, lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of (φ(a+u) − φ(a))/u over lo ≤ u ≤ hi, u ≠ 0.

    On one side of the anchor the secant is monotone as long as φ' is, and rises and falls once
    where φ' does: its extreme is then where a tangent passes through the anchor. Past several turns
    of φ' it is enclosed by the range of φ' and by φ'(a) ± ½|u|·sup |φ''|.
    """
    start = curve.slope(a)
    left, right = (_side(curve, a, end, start) for end in (lo, hi))
    least, most = torch.minimum(left[0], right[0]), torch.maximum(left[1], right[1])
    pad = _pad(curve, most - least, 1.0 + most.abs())
    most = most + pad
    least = (least - pad).clamp(min=curve.least)
    return least, most if curve.most is None else most.clamp(max=curve.most)


def _pad(curve: Curve, width: Tensor, size: Tensor) -> Tensor:
    """What rounding takes off secants of this size; 0 where a straight curve is straight."""
    pad = curve.error * size
    return torch.where(width == 0, 0.0, pad) if curve.straight else pad


def _side(curve: Curve, a: Tensor, end: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of the secants between the anchor, where they start, and a + end."""
    b, last = a + end, curve.secant(a, end)
    least, most = torch.minimum(start, last), torch.maximum(start, last)
    if not curve.turns:
        return least, most
    bottom, top = torch.minimum(a, b), torch.maximum(a, b)
    passed = [(bottom <= point) & (point <= top) for point, _ in curve.turns]
    several = torch.stack(passed).sum(0) > 1
    for (point, extreme), here in zip(curve.turns, passed):
        rises = extreme == curve.most
        alone = here & ~several
        if bool(alone.any()):
            found = _tangent(curve, a[alone], point, extreme, end[alone], 1.0 if rises else -1.0)
            (most if rises else least)[alone] = found
    if bool(several.any()):
        _enclose(curve, least, most, several, start, curve.slope(b), end)
    return least, most


def _enclose(
    curve: Curve,
    least: Tensor,
    most: Tensor,
    where: Tensor,
    start: Tensor,
    stop: Tensor,
    end: Tensor,
) -> None:
    """Past several turns: the range of φ', and no further from φ'(a) than φ'' allows."""
    extremes = [extreme for _, extreme in curve.turns]
    low = torch.minimum(torch.minimum(start, stop), least.new_tensor(min(extremes)))
    high = torch.maximum(torch.maximum(start, stop), most.new_tensor(max(extremes)))
    if curve.curvature is not None:
        reach = 0.5 * curve.curvature * end.abs()
        low, high = torch.maximum(low, start - reach), torch.minimum(high, start + reach)
    least[where], most[where] = low[where], high[where]


def _tangent(
    curve: Curve, a: Tensor, point: float, extreme: float, end: Tensor, sign: float
) -> Tensor:
    """The extreme secant of a side on which φ' turns once, at ``point``.

    The secants rise (sign 1; −1: fall) until φ' has come down to them. That place lies between
    ``near`` and ``far``; past ``near`` they change by less than (φ' − secant)·|far − near|/|near|.
    """
    near, far = point - a, end.clone()
    near = torch.where(near.abs() < far.abs(), near, far)
    top = torch.full_like(a, extreme)
    for _ in range(HALVINGS):
        middle = 0.5 * (near + far)
        slope, secant = curve.slope(a + middle), curve.secant(a, middle)
        before = sign * (slope - secant) > 0
        near, far = torch.where(before, middle, near), torch.where(before, far, middle)
        top = torch.where(before, slope, top)
    secant = curve.secant(a, near)
    excess = sign * (top - secant)
    reached = excess.clamp(min=0.0) * torch.where(near == far, 0.0, (far - near) / near).abs()
    bound = secant + sign * torch.where(near == 0, excess, torch.minimum(excess, reached))
    return torch.where(excess < 0, secant, bound)


def affine(curve: Curve, a: Tensor, lo: Tensor, hi: Tensor) -> Affine:
    """The relaxation along the chord from lo to hi, its error as small as any for that slope.

    φ(a+u) − φ(a) − slope·u is extreme at the ends, at u = 0, at kinks and where φ' = slope.
    """
    below, above = curve.secant(a, lo), curve.secant(a, hi)
    width = hi - lo
    chord = (hi * above - lo * below) / width
    slope = torch.where((below == above) | (width == 0), above, chord)
    ends = lo * (below - slope), hi * (above - slope)
    least = torch.minimum(*ends).clamp(max=0.0)
    most = torch.maximum(*ends).clamp(min=0.0)
    for low, high in _inside(curve, a, lo, hi, slope):
        least, most = torch.minimum(least, low), torch.maximum(most, high)
    size = torch.maximum(hi, -lo) * (1.0 + slope.abs() + above.abs() + below.abs())
    error = 0.5 * (most - least) + _pad(curve, most - least, size)
    return Affine(slope, 0.5 * (most + least), error)


def _inside(
    curve: Curve, a: Tensor, lo: Tensor, hi: Tensor, slope: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Bounds of the extreme values between the ends, one pair for each."""
    if curve.stationary is None:
        yield from _crossings(curve, a, lo, hi, slope)
        return
    for point in curve.stationary(slope):
        u = torch.where(point.isnan(), 0.0, point - a)
        u = torch.minimum(torch.maximum(u, lo), hi)
        value = u * (curve.secant(a, u) - slope)
        yield value, value


def _crossings(
    curve: Curve, a: Tensor, lo: Tensor, hi: Tensor, slope: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """φ' = slope by false position, once at most between two turns; ± what is left of the error."""
    ends = [-torch.inf, *(point for point, _ in curve.turns), torch.inf]
    for low, high in itertools.pairwise(ends):
        left, right = torch.maximum(lo, low - a), torch.minimum(hi, high - a)
        f, g = (curve.slope(a + u) - slope for u in (left, right))
        here = (left < right) & (f * g < 0)
        if bool(here.any()):
            parts = (t[here] for t in (a, slope, left, right, f, g))
            value, rest = _false_position(curve, *parts)
            least, most = torch.zeros_like(a), torch.zeros_like(a)
            least[here], most[here] = value - rest, value + rest
            yield least, most


def _false_position(
    curve: Curve, a: Tensor, slope: Tensor, left: Tensor, right: Tensor, f: Tensor, g: Tensor
) -> tuple[Tensor, Tensor]:
    """φ(a+u) − φ(a) − slope·u at nearly its extreme in (left, right), and how far that may be.

    φ' is monotone in between, so from an end it is at most |φ' − slope|·width away.
    """
    fs, gs = f, g  # as the Illinois rule scales them
    for _ in range(FALSE_POSITIONS):
        u = (left * gs - right * fs) / (gs - fs)
        h = curve.slope(a + u) - slope
        moves_left = h * f > 0
        fs = torch.where(moves_left, h, 0.5 * fs)
        gs = torch.where(moves_left, 0.5 * gs, h)
        left, right = torch.where(moves_left, u, left), torch.where(moves_left, right, u)
        f, g = torch.where(moves_left, h, f), torch.where(moves_left, g, h)
    closer = f.abs() < g.abs()
    u, rate = torch.where(closer, left, right), torch.where(closer, f, g).abs()
    return u * (curve.secant(a, u) - slope), rate * (right - left)


def moves(
    curve: Curve, relaxed: Affine, a: Tensor, lo: Tensor, hi: Tensor
) -> tuple[Tensor, Tensor]:
    """The range of φ(a+u) − φ(a): between the ends where φ increases, else from the relaxation."""
    if curve.least >= 0:
        low, high = lo * curve.secant(a, lo), hi * curve.secant(a, hi)
        pad = _pad(curve, high - low, high - low)
        return low - pad, high + pad
    ends = relaxed.slope * lo, relaxed.slope * hi
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    return low + relaxed.shift - relaxed.error, high + relaxed.shift + relaxed.error

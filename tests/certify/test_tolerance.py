"""What a probability above ½ tolerates, against the exact worst set of two Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special

from vaefast.certify import tolerance
from vaefast.certify.tolerance import required_probability, tolerates

DRAWS = 100_000


def tolerated(shift: float, scale: float, p: float) -> bool:
    return bool(tolerates(*(torch.tensor([t], dtype=torch.float64) for t in (shift, scale, p))))


def largest(scale: float, p: float) -> float:
    low, high = 0.0, 6.0
    for _ in range(24):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if tolerated(middle, scale, p) else (low, middle)
    return low


@pytest.mark.parametrize("p", [0.6, 0.9, 0.99, 0.9999])
def test_the_quantile_is_tolerated_where_the_scale_is_kept(p: float):
    q = float(special.ndtri(p))
    assert tolerated(q * (1 - 1e-9), 0.0, p)
    assert not tolerated(q, 0.0, p)


@pytest.mark.parametrize(
    ("scale", "expected"), [(0.02, 2.322), (0.05, 2.311), (0.1, 2.284), (0.2, 2.172)]
)
def test_values_of_the_joint_bound(scale: float, expected: float):
    assert largest(scale, 0.99) == pytest.approx(expected, abs=2e-3)


def worst_kept(shift: np.ndarray, log_scale: np.ndarray, p: float) -> float:
    """The least Q'(A) of all A with Q(A) = p: that of a set of small likelihood ratios."""
    own = np.random.default_rng(0).standard_normal((DRAWS, len(shift)))
    moved = shift + np.exp(log_scale) * np.random.default_rng(1).standard_normal(own.shape)

    def ratio(y: np.ndarray) -> np.ndarray:  # log of the density of Q' over that of Q
        return (0.5 * y**2 - 0.5 * ((y - shift) / np.exp(log_scale)) ** 2 - log_scale).sum(1)

    return float((ratio(moved) <= np.quantile(ratio(own), p)).mean())


@pytest.mark.parametrize("latents", [1, 3])
@pytest.mark.parametrize("scale", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("p", [0.9, 0.99])
def test_no_set_loses_more_than_is_tolerated(latents: int, scale: float, p: float):
    """For changes of the scale along the shift, across it, spread, signed and concentrated."""
    delta = largest(scale, p)
    if delta == 0.0:
        return
    along = np.zeros(latents)
    along[0] = delta
    even = np.full(latents, latents**-0.5)
    random = np.random.default_rng(3).standard_normal(latents)
    first, last = np.eye(latents)[0], np.eye(latents)[-1]
    changes = [first, -first, last, -last, even, -even, random / np.linalg.norm(random)]
    for direction in changes:
        for shift in (along, delta * even):
            kept = worst_kept(shift, scale * direction, p)
            assert kept > 0.5 - 4 * 0.5 / DRAWS**0.5 - 2e-3, (direction, kept)


def test_more_probability_tolerates_more_and_more_change_is_tolerated_less():
    scales = [0.0, 0.05, 0.15, 0.3, 0.5]
    by_scale = [largest(scale, 0.99) for scale in scales]
    by_p = [largest(0.15, p) for p in (0.7, 0.9, 0.99, 0.999)]
    assert by_scale == sorted(by_scale, reverse=True)
    assert by_p == sorted(by_p)


def test_the_quadrature_is_no_smaller_than_a_finer_one(monkeypatch):
    """The kink at small scales is cut off by a coarse rule, so its bound must pay for that."""
    cases = [(scale, p) for scale in (0.0003, 0.003, 0.03, 0.2) for p in (0.6, 0.8, 0.999)]
    coarse = [largest(*case) for case in cases]
    monkeypatch.setattr(tolerance, "NODES", 8 * (tolerance.NODES - 1) + 1)
    fine = [largest(*case) for case in cases]
    assert all(0.99 * b - 1e-3 < a <= b + 1e-6 for a, b in zip(coarse, fine, strict=True))


def test_rows_do_not_depend_on_each_other():
    torch.manual_seed(0)
    shift, scale = torch.rand(200).double() * 3, torch.rand(200).double() * 0.4
    p = 1 - torch.rand(200).double() ** 3 / 2
    whole = tolerates(shift, scale, p)
    rows = [bool(tolerates(shift[i : i + 1], scale[i : i + 1], p[i : i + 1])) for i in range(200)]
    assert whole.tolist() == rows
    assert 20 < int(whole.sum()) < 180


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_tolerated(bad: float):
    assert not tolerated(bad, 0.1, 0.99)
    assert not tolerated(0.1, bad, 0.99)
    assert not tolerated(0.1, 0.1, torch.nan)


def test_the_required_probability_is_the_least_that_tolerates():
    shift = torch.tensor([0.0, 0.5, 2.0, 2.0, 9.0], dtype=torch.float64)
    scale = torch.tensor([0.0, 0.0, 0.1, 0.6, 0.1], dtype=torch.float64)
    p = required_probability(shift, scale)
    assert p[:2].tolist() == pytest.approx([0.5, float(special.ndtr(0.5))], abs=1e-6)
    assert bool(tolerates(shift, scale, p)[1:4].all())
    less = 1 - (1 - p) * 1.001
    assert not bool(tolerates(shift, scale, less)[1:4].any())
    assert p[4] == 1.0

"""Cells cover an ellipsoid only where every posterior of it keeps its majority."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from vaefast.certify import cells
from vaefast.certify.cells import Ellipsoid, anchors, covered

LATENTS = 4


def random_ellipsoid(seed: int, rows: int, decay: float = 0.5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    U = torch.linalg.qr(torch.randn(rows, rows, generator=generator).double())[0]
    lengths = 2.0 * decay ** torch.arange(rows)
    return (U * lengths.square()) @ U.mT


def half_space(normal: torch.Tensor, q: float):
    """The exact probability of leaving {z : ⟨normal, z⟩ ≤ q}."""

    def misses(means, log_scale=None):
        width = 1.0 if log_scale is None else (normal * log_scale.exp()).norm(dim=-1)
        return torch.from_numpy(stats.norm.sf((q - means @ normal) / width))

    return misses


def ball(radius: float):
    """The exact probability of leaving a ball around 0, at scale 1."""

    def misses(means):
        far = means.square().sum(1).numpy()
        return torch.from_numpy(stats.ncx2.sf(radius**2, LATENTS, far))

    return misses


def largest(Q, misses, axes, scale=0.0):
    """The largest factor of the ellipsoid's lengths that is covered."""
    low, high = 0.0, 4.0
    for _ in range(10):
        middle = 0.5 * (low + high)
        held = covered(Ellipsoid.of(middle**2 * Q, axes, middle * scale), misses)
        low, high = (middle, high) if held else (low, middle)
    return low


@pytest.mark.parametrize("axes", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_of_a_half_space_no_more_than_the_exact_share_is_covered(axes: int, seed: int):
    """Covered up to s with s·√(nᵀQn) = q exactly; without axes Neyman and Pearson's s·a₁ = q."""
    Q = random_ellipsoid(seed, LATENTS)
    normal = torch.nn.functional.normalize(torch.randn(LATENTS).double(), dim=0)
    exact = 1.5 / math.sqrt(float(normal @ Q @ normal))
    found = largest(Q, half_space(normal, 1.5), axes)
    assert found < exact
    if axes == 0:
        assert found == pytest.approx(1.5 / 2.0, abs=5e-3)
    if axes == 3:
        assert found > 0.7 * exact


def test_of_a_ball_anchors_cover_more_than_the_probability_at_the_centre_says():
    Q = random_ellipsoid(0, LATENTS)
    misses = ball(3.2)
    q = float(stats.norm.isf(float(misses(torch.zeros(1, LATENTS).double()))))
    by_centre, by_anchors = (largest(Q, misses, axes) for axes in (0, 2))
    assert by_centre == pytest.approx(q / 2.0, abs=5e-3)
    assert by_anchors > 1.15 * by_centre
    # the tip of the longest axis is the first posterior to lose its majority
    tip = torch.zeros(1, LATENTS).double()
    tip[0, 0] = 2.0 * by_anchors
    assert float(misses(tip)) < 0.5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_with_a_scale_that_moves_no_posterior_of_what_is_covered_loses(seed: int):
    """Means on the surface and scales of the largest change, of a half-space and of a slab."""
    Q, scale = random_ellipsoid(seed, LATENTS, decay=0.6), 0.15
    normal = torch.nn.functional.normalize(torch.randn(LATENTS).double(), dim=0)
    misses = half_space(normal, 1.5)
    share = largest(Q, misses, 2, scale)
    exact = 1.5 / math.sqrt(float(normal @ Q @ normal))
    assert 0.5 * exact < share < exact
    # of a slab about 0 the scale decides: it is left by widening, and that costs some of the radius

    def slab(means, log_scale=None):
        right = half_space(normal, 1.8)
        left = half_space(-normal, 1.8)
        return right(means, log_scale) + left(means, log_scale)

    of_slab = largest(Q, slab, 2, scale)
    assert 0.2 * exact < of_slab < largest(Q, slab, 2)
    for found, event in ((share, misses), (of_slab, slab)):
        factor = torch.linalg.cholesky(found**2 * Q)
        y = torch.nn.functional.normalize(torch.randn(500, LATENTS).double(), dim=1) @ factor.mT
        e = torch.nn.functional.normalize(torch.randn(500, LATENTS).double(), dim=1)
        assert bool((event(y, found * scale * e) < 0.5).all())
        assert bool((event(y, found * scale * e.abs()) < 0.5).all())


def test_a_slab_between_two_anchors_is_not_overlooked(monkeypatch):
    """Misses with |z₁ − 1| ≤ .755 have .36 at the anchors 0 and 2 and a majority between them."""
    monkeypatch.setattr(cells, "DEPTH", 1)

    def slab(means):
        ends = [torch.special.ndtr(1.0 + side * 0.755 - means[:, 0]) for side in (1, -1)]
        return ends[0] - ends[1]

    Q = torch.diag(torch.tensor([4.0, 1e-6, 1e-6, 1e-6]).double())
    assert not covered(Ellipsoid.of(Q, 1), slab)
    # of its share that ends before the slab all is well
    assert covered(Ellipsoid.of(0.01 * Q, 1), slab)


def test_every_anchor_that_is_asked_for_is_counted():
    Q = random_ellipsoid(0, LATENTS)
    asked = set()
    normal = torch.nn.functional.normalize(torch.ones(LATENTS).double(), dim=0)
    exact = half_space(normal, 1.2)

    def misses(means):
        asked.update(map(tuple, (means * 1e6).round().long().tolist()))
        return exact(means)

    ellipsoid = Ellipsoid.of(Q, 3)
    covered(ellipsoid, misses)
    assert 10 < len(asked) <= anchors(ellipsoid) == 17**3


def test_nothing_is_covered_where_nothing_is_known():
    ellipsoid = Ellipsoid.of(random_ellipsoid(0, LATENTS), 3)
    assert not covered(ellipsoid, lambda means: torch.ones(len(means)).double())
    assert covered(ellipsoid, lambda means: torch.zeros(len(means)).double())

"""Misses of many posteriors bounded from one pool: the level holds, whatever was re-weighted."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import special, stats

from vaefast.certify.pool import NEAR, Levels, Pool, Spread, _upper_inverse

AXES = torch.linalg.qr(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double())[0]
LENGTHS = torch.tensor([2.0, 1.2]).double()
NORMAL = torch.nn.functional.normalize(AXES[:, 0] + 0.3 * AXES[:, 1], dim=0)
QUANTILE = 2.2


def pool(seed: int, samples: int) -> Pool:
    """What leaves a half-space, of draws around an ellipse of posteriors."""
    spread = Spread.along(AXES, LENGTHS)
    generator = torch.Generator().manual_seed(seed)
    z = spread.draws(torch.randn(samples, 6, generator=generator, dtype=torch.float64))
    return Pool(spread, z[z @ NORMAL > QUANTILE], samples)


def exact(means: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(stats.norm.sf(QUANTILE - means @ NORMAL))


def targets() -> torch.Tensor:
    t = torch.cartesian_prod(torch.linspace(-1, 1, 9), torch.linspace(-1, 1, 5)).double()
    return (t * LENGTHS) @ AXES.mT


def test_bounds_are_above_the_truth_and_near_it():
    means = targets()
    level = Levels.of(len(means), 1e-6)
    bound, truth = pool(0, 200_000).miss_bounds(means, level), exact(means)
    assert bool((bound > truth).all())
    assert bool((bound < truth + 0.02 + 0.1 * truth).all())


def test_of_many_pools_at_most_a_share_of_alpha_has_any_bound_below_the_truth():
    means, truth = targets(), exact(targets())
    level = Levels.of(len(means), 0.2)
    wrong = sum(
        bool((pool(seed, 500).miss_bounds(means, level) < truth).any()) for seed in range(100)
    )
    assert wrong <= 0.2 * 100


def test_no_weight_exceeds_its_ceiling():
    own, means = pool(1, 20_000), targets()
    weights = own._log_weights(means).exp().amax(1)
    ceiling = own._ceiling(means)
    assert bool((weights <= ceiling * (1 + 1e-12)).all())
    # and near a z where it is nearly attained: (P − I)⁻¹ P m
    cover = own.spread.factor @ own.spread.factor.mT
    peak = torch.linalg.solve(cover - torch.eye(5).double(), cover @ means[0])
    there = Pool(own.spread, peak[None], 1)._log_weights(means[:1]).exp()
    assert 0.8 < float(there) / float(ceiling[0]) <= 1.0
    assert float(ceiling[len(means) // 2]) == 1.0 / NEAR  # at the origin


def test_ascent_finds_no_weight_above_the_ceiling():
    own, means = pool(1, 100), targets()
    z = torch.zeros(len(means), 5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([z], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        weight = Pool(own.spread, z, 1)._log_weights(means).diagonal()
        (-weight.sum()).backward()
        optimizer.step()
    ratio = (weight.exp() / own._ceiling(means)).detach()
    assert bool((ratio <= 1.0).all())
    assert float(ratio.median()) > 0.6


@pytest.mark.parametrize("p", [0.0, 1e-9, 1e-3, 0.2, 0.9, 1.0])
@pytest.mark.parametrize("budget", [1e-7, 4e-4, 0.05, 3.0])
def test_the_inverse_of_the_divergence_is_never_below_and_near_the_root(p: float, budget: float):
    def divergence(q: float) -> float:
        return float(special.rel_entr(p, q) + special.rel_entr(1.0 - p, 1.0 - q))

    found = float(_upper_inverse(*torch.tensor([[p], [budget]], dtype=torch.float64)))
    assert p <= found <= 1.0
    assert found == 1.0 or divergence(found) >= budget * (1 - 1e-9)
    if found < 1.0 - 1e-9:
        assert divergence(p + 0.98 * (found - p)) < budget


def test_no_misses_still_have_a_bound():
    spread = Spread.along(AXES, LENGTHS)
    empty = Pool(spread, torch.zeros(0, 5).double(), 10_000)
    bound = empty.miss_bounds(targets(), Levels(5.0, 10.0))
    assert 0.0 < float(bound.min()) < float(bound.max()) < 0.1


@pytest.mark.parametrize("anchors", [1, 40, 5000])
def test_the_origin_and_all_anchors_share_alpha(anchors):
    """Each bound is wrong with probability 3·e^−L at most; the union of all has α in total."""
    at_origin, elsewhere = Levels.of(anchors, 1e-3)
    wrong = 3.0 * (math.exp(-at_origin) + anchors * math.exp(-elsewhere))
    assert 0.5e-3 < wrong <= 1e-3

"""Misses of many posteriors bounded from one pool: the level holds, whatever was re-weighted."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from vaefast.certify.pool import Pool, Spread, level_of

AXES = torch.linalg.qr(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double())[0]
LENGTHS = torch.tensor([2.0, 1.2]).double()
NORMAL = torch.nn.functional.normalize(AXES[:, 0] + 0.3 * AXES[:, 1], dim=0)
QUANTILE = 2.2


def pool(seed: int, samples: int, widest: float = 1.0) -> Pool:
    """What leaves a half-space, of draws around an ellipse of posteriors."""
    spread = Spread.along(AXES, LENGTHS, widest)
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(samples, 5, generator=generator, dtype=torch.float64) @ spread.factor.mT
    return Pool(spread, z[z @ NORMAL > QUANTILE], samples)


def exact(means: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    width = (NORMAL * log_scale.exp()).norm()
    return torch.from_numpy(stats.norm.sf((QUANTILE - means @ NORMAL) / width))


def targets() -> torch.Tensor:
    t = torch.cartesian_prod(torch.linspace(-1, 1, 9), torch.linspace(-1, 1, 5)).double()
    return (t * LENGTHS) @ AXES.mT


@pytest.mark.parametrize("scale", [0.0, 0.15, -0.15])
def test_bounds_are_above_the_truth_and_near_it(scale: float):
    log_scale = torch.full((5,), scale, dtype=torch.float64)
    means = targets()
    level = level_of(len(means), 1e-6)
    bound = pool(0, 200_000, widest=math.exp(max(scale, 0.0))).miss_bounds(means, log_scale, level)
    truth = exact(means, log_scale)
    assert bool((bound > truth).all())
    assert bool((bound < truth + 0.02 + 0.1 * truth).all())


def test_of_many_pools_at_most_a_share_of_alpha_has_any_bound_below_the_truth():
    means, still = targets(), torch.zeros(5, dtype=torch.float64)
    level, truth = level_of(len(means), 0.2), exact(targets(), torch.zeros(5).double())
    wrong = sum(
        bool((pool(seed, 500).miss_bounds(means, still, level) < truth).any())
        for seed in range(200)
    )
    assert wrong <= 0.2 * 200


def test_no_weight_exceeds_its_ceiling():
    own = pool(1, 20_000)
    means, log_scale = targets(), torch.full((5,), 0.02, dtype=torch.float64)
    weights = own._log_weights(means, log_scale).exp().amax(1)
    ceiling = own._ceiling(means, log_scale)
    assert bool((weights <= ceiling * (1 + 1e-12)).all())
    # and a z where it is attained: (P − D)⁻¹ P m
    cover = own.spread.factor @ own.spread.factor.mT
    rest = cover - torch.diag((2 * log_scale).exp())
    peak = torch.linalg.solve(rest, cover @ means[0])
    there = Pool(own.spread, peak[None], 1)._log_weights(means[:1], log_scale).exp()
    assert float(there) == pytest.approx(float(ceiling[0]), rel=1e-9)


def test_a_target_wider_than_the_pool_has_no_bound():
    wide = torch.full((5,), 0.5, dtype=torch.float64)
    assert pool(0, 1000).miss_bounds(targets(), wide, 10.0).tolist() == [1.0] * 45


def test_no_misses_still_have_a_bound():
    spread = Spread.along(AXES, LENGTHS)
    empty = Pool(spread, torch.zeros(0, 5).double(), 10_000)
    bound = empty.miss_bounds(targets(), torch.zeros(5).double(), 10.0)
    assert 0.0 < float(bound.min()) < float(bound.max()) < 0.1

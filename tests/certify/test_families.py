"""Statements about several radii or inputs at once hold at their level."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from vaefast.certify import (
    band,
    band_width,
    binomial_p_values,
    certified_at,
    clopper_pearson,
    distance,
    drawn_distances,
    holm,
    margin,
    order_statistics,
    required_at,
    robust_probabilities,
    robust_probability,
    simultaneous_bounds,
)
from vaefast.models import MLPVAE

TRIALS = 4000


@pytest.fixture
def small():
    vae = MLPVAE((1, 4, 4), hidden=(12,), latent=3, fixed_std=0.6, seed=1).double().eval()
    x = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return vae, x


def uniform(samples, trials=TRIALS, seed=0):
    """Distances whose law is F(r) = r on [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(trials, samples, generator=generator, dtype=torch.float64)


def at_most(wrong, trials, alpha):
    """Whether as many failures are likely (to 1e-6) at a level of alpha."""
    return wrong <= stats.binom.ppf(1 - 1e-6, trials, alpha)


def test_bounds_at_several_radii_are_those_at_a_share_of_alpha():
    hits = torch.tensor([[0, 40, 50], [10, 20, 30]])
    found = simultaneous_bounds(hits, 50, 0.03)
    assert torch.equal(found, clopper_pearson(hits.flatten(), 50, 0.01).view(2, 3))
    assert simultaneous_bounds(hits[:, :0], 50, 0.03).shape == (2, 0)


def test_several_radii_hold_together_and_at_alpha_each_they_would_not():
    draws, radii, alpha = uniform(60), torch.linspace(0.1, 0.95, 12), 0.1
    hits = (draws[:, :, None] <= radii).sum(1)
    wrong = (simultaneous_bounds(hits, 60, alpha) > radii).any(1)
    assert at_most(int(wrong.sum()), TRIALS, alpha)
    each = (clopper_pearson(hits.flatten(), 60, alpha).view_as(hits) > radii).any(1)
    assert not at_most(int(each.sum()), TRIALS, alpha)


def test_an_order_statistic_holds_exactly_alpha_of_the_time():
    """F(‖Δ‖_(k)) is Beta(k, S − k + 1) of a continuous law: the level is attained."""
    alpha, rank = 0.1, 45
    found = order_statistics(uniform(50), rank, alpha)
    wrong = int((found.r[:, 0] < found.p_lower).sum())
    assert stats.binomtest(wrong, TRIALS, alpha).pvalue > 1e-6
    assert found.p_lower.item() == pytest.approx(stats.beta.ppf(alpha, rank, 50 - rank + 1))


def test_several_ranks_share_alpha():
    ranks, alpha = (10, 25, 49, 50), 0.1
    found = order_statistics(uniform(50), ranks, alpha)
    assert (found.r.shape, found.p_lower.shape) == ((TRIALS, 4), (4,))
    expected = [stats.beta.ppf(alpha / 4, k, 51 - k) for k in ranks]
    np.testing.assert_allclose(found.p_lower.numpy(), expected, rtol=1e-9)
    assert at_most(int((found.r < found.p_lower).any(1).sum()), TRIALS, alpha)


def test_a_rank_that_is_chosen_by_a_look_at_the_draws_does_not_hold():
    """What the docstring forbids: of all ranks the one whose radius promises most beside its F."""
    draws, alpha = uniform(50).sort(1).values, 0.1
    levels = clopper_pearson(torch.arange(1, 51), 50, alpha)
    assert not at_most(int((draws < levels).any(1).sum()), TRIALS, alpha)


@pytest.mark.parametrize("alpha", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("samples", [5, 40])
def test_the_band_holds_for_the_worst_radius(alpha, samples):
    """sup(F̂ − F) is attained at a draw, so that all r are looked at by looking at these."""
    draws = uniform(samples, seed=1)
    wrong = (band(draws, draws, alpha) > draws).any(1)
    assert at_most(int(wrong.sum()), TRIALS, alpha)


@pytest.mark.parametrize("alpha", [0.4, 0.1, 0.01])
def test_the_level_of_the_band_is_that_of_the_exact_law(alpha):
    """P(sup(F̂ − F) > ε) by the exact one-sided law: at most alpha, and not far below it."""
    exact = stats.ksone.sf(band_width(200, alpha), 200)
    assert 0.8 * alpha < exact <= alpha


def test_the_band_is_the_share_less_its_width():
    rows = [0.1, 0.3, math.nan, 0.2] * 10, [1.0, math.inf, 3.0, 4.0] * 10
    draws = torch.tensor(rows, dtype=torch.float64)
    r = torch.tensor([0.0, 0.2, 5.0, math.inf, math.nan], dtype=torch.float64)
    width = math.sqrt(math.log(2) / 80)
    share = torch.tensor([[0, 0.5, 0.75, 0.75, 0], [0, 0, 0.75, 0.75, 0]], dtype=torch.float64)
    expected = (share - width).clamp(min=0.0)
    torch.testing.assert_close(band(draws, r, 0.5), expected)
    torch.testing.assert_close(band(draws, r.expand(2, -1), 0.5), expected)
    assert band(draws, 0.2, 0.5).shape == (2, 1)


def test_a_grid_of_order_statistics_shows_no_more_than_all_draws():
    draws, radii = uniform(100, 50), torch.linspace(0, 1, 40)
    ranks = torch.arange(4, 101, 4)
    grid = draws.sort(1).values[:, ranks - 1]
    few = band(grid, radii, 0.01, ranks=ranks, samples=100)
    all_of_them = band(draws, radii, 0.01)
    assert bool((few <= all_of_them).all())
    assert bool((few >= all_of_them - 0.031).all())


@pytest.mark.parametrize("p", [0.3, 0.97])
def test_p_values_are_scipys_and_valid_exactly(p):
    """P(p-value ≤ α) ≤ α at the null, summed over the binomial law."""
    k = torch.arange(41)
    values = binomial_p_values(k, 40, torch.full((41,), p, dtype=torch.float64))
    np.testing.assert_allclose(values.numpy(), stats.binom.sf(k.numpy() - 1, 40, p), rtol=1e-9)
    law = stats.binom.pmf(k.numpy(), 40, p)
    for alpha in (0.3, 0.05, 1e-3):
        assert law[values.numpy() <= alpha].sum() <= alpha
    below = binomial_p_values(k, 40, torch.full((41,), p - 0.1, dtype=torch.float64))
    assert bool((below <= values).all())  # more is shown of a smaller probability


def test_what_cannot_be_shown_has_a_p_value_of_one():
    p = torch.tensor([1.0, math.nan, 0.9, 1.0])
    assert binomial_p_values(torch.tensor([50, 50, 0, 0]), 50, p).tolist() == [1.0] * 4


def by_hand(values, alpha):
    chosen, n = [False] * len(values), len(values)
    for i, row in enumerate(sorted(range(n), key=lambda k: values[k])):
        if not values[row] <= alpha / (n - i):
            break
        chosen[row] = True
    return chosen


def test_holm_is_the_procedure_by_hand():
    generator = torch.Generator().manual_seed(2)
    for n in (0, 1, 2, 7, 30):
        values = torch.rand(n, generator=generator, dtype=torch.float64) ** 6
        values[n // 2 :] = values[n // 2 :].round(decimals=2)  # some are equal
        assert holm(values, 0.1).tolist() == by_hand(values.tolist(), 0.1)
        assert bool((holm(values, 0.1) >= (values <= 0.1 / max(n, 1))).all())
    assert holm(torch.tensor([math.nan, 0.04, 0.02]), 0.1).tolist() == [False, True, True]
    assert holm(torch.tensor([math.nan, 0.04, 0.04]), 0.1).tolist() == [False, False, False]


def test_lists_are_wrong_as_seldom_as_alpha():
    """20 inputs, half of them at the null exactly: no more than alpha of the lists hold one."""
    rng, alpha, samples = np.random.default_rng(3), 0.2, 400
    p = np.r_[np.full(10, 0.9), np.full(10, 0.94)]
    hits = torch.from_numpy(rng.binomial(samples, p, (2000, 20)))
    null = torch.full((20,), 0.9, dtype=torch.float64)
    wrong = right = plain = 0
    for row in hits:
        values = binomial_p_values(row, samples, null)
        chosen = holm(values, alpha)
        wrong += bool(chosen[:10].any())
        right += int(chosen[10:].sum())
        plain += int((values[10:] <= alpha / 20).sum())
    assert at_most(wrong, 2000, alpha)
    assert right > plain  # than Bonferroni


def test_the_probability_that_a_ball_asks_for_is_that_of_a_distance(small):
    vae, x = small
    found = required_at(vae, x, 0.05)
    assert torch.equal(found, distance(vae, x, 0.05, samples=50).p_required)
    assert bool((required_at(vae, x, 0.1) > found).all())
    x[2] = math.nan
    assert required_at(vae, x, 0.05).isnan().tolist() == [k == 2 for k in range(8)]


def test_drawn_distances_are_those_that_are_counted(small):
    vae, x = small
    draws = drawn_distances(vae, x, samples=200, seed=4)
    for r in (0.3, 0.8, 1.3):
        hits = robust_probability(vae, x, r, samples=200, seed=4).hits
        assert torch.equal((draws <= r).sum(1), hits)
    part = drawn_distances(vae, x[5:], samples=200, seed=4, index=torch.arange(5, 8))
    torch.testing.assert_close(part, draws[5:])
    x[1, 0, 0, 0] = math.nan
    assert bool(drawn_distances(vae, x, samples=5)[1].isnan().all())


def test_the_list_holds_all_whose_margin_reaches_the_radius(small):
    vae, x = small
    r, samples, alpha = 1.5, 400, 0.05
    margins = margin(vae, x, r, method="local", samples=samples, alpha=alpha, over="run").margin
    radius = float(margins.max())
    found = certified_at(vae, x, radius, r, samples=samples, alpha=alpha)
    assert bool((found.certified >= (margins >= radius)).all())
    assert bool(found.certified.any())
    assert not bool(found.certified.all())
    own = robust_probability(vae, x, r, samples=samples)
    assert torch.equal(found.hits, own.hits)
    values = binomial_p_values(own.hits, samples, required_at(vae, x, radius))
    assert torch.equal(found.p_value, values)
    assert [bool(why) for why in found.reasons] == (~found.certified).tolist()
    assert found.guarantee.sound


def test_inputs_that_are_not_finite_are_not_on_the_list(small):
    vae, x = small
    x[3, 0, 1, 1] = math.nan
    found = certified_at(vae, x, 0.001, 3.0, samples=500)
    assert found.certified.tolist() == [k != 3 for k in range(8)]
    assert found.reasons[3] == "x, r or radius is not finite"
    assert certified_at(vae, x, 50.0, 3.0).reasons[0].startswith("the ball moves the posterior")


def test_what_is_refused(small):
    vae, x = small
    draws = uniform(10, 2)
    with pytest.raises(ValueError, match="alpha of a band must be at most 1/2"):
        band(draws, 0.5, 0.6)
    with pytest.raises(ValueError, match="ranks and samples go together"):
        band(draws, 0.5, 0.1, samples=10)
    with pytest.raises(ValueError, match="10 ascending numbers from 1 to samples = 9"):
        band(draws, 0.5, 0.1, ranks=torch.arange(1, 11), samples=9)
    with pytest.raises(ValueError, match=r"r must be a float, \[m\] or \[B, m\] with B = 2"):
        band(draws, torch.zeros(3, 4), 0.1)
    for rank in (0, 11, (3, 11), ()):
        with pytest.raises(ValueError, match="rank must be"):
            order_statistics(draws, rank, 0.1)
    with pytest.raises(TypeError, match="rank must be a whole number"):
        order_statistics(draws, (1.5,), 0.1)
    with pytest.raises(ValueError, match=r"hits must be \[B, m\]"):
        simultaneous_bounds(torch.tensor([1]), 3, 0.1)
    with pytest.raises(ValueError, match="between 0 and samples = 3, got values from 1 to 4"):
        binomial_p_values(torch.tensor([1, 4]), 3, torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\]"):
        binomial_p_values(torch.tensor([1]), 3, torch.tensor([1.5]))
    with pytest.raises(TypeError, match="hits must be int64, got float32"):
        binomial_p_values(torch.tensor([1.0]), 3, torch.tensor([0.5]))
    with pytest.raises(ValueError, match=r"p_values must be \[n\]"):
        holm(torch.zeros(2, 2), 0.1)
    with pytest.raises(ValueError, match="radius must be finite, got inf"):
        required_at(vae, x, math.inf)
    with pytest.raises(ValueError, match="alpha must lie in"):
        certified_at(vae, x, 0.1, 1.0, alpha=1.0)


def test_several_radii_count_what_one_counts(vae, x):
    """Of every kind of decoder, and with a row that is not finite."""
    x[2, 0, 0, 0] = math.nan
    radii, how = (0.3, 0.6, 1.2), {"samples": 60, "seed": 3}
    found = robust_probabilities(vae, x, radii, alpha=0.03, **how)
    for r, own in zip(radii, found, strict=True):
        lone = robust_probability(vae, x, r, alpha=0.03 / 3, **how)
        for name in ("hits", "p", "p_lower", "r"):
            theirs, ours = getattr(lone, name), getattr(own, name)
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
        assert (own.alpha, own.fingerprint) == (lone.alpha, lone.fingerprint)
    with pytest.raises(ValueError, match="at least one radius"):
        robust_probabilities(vae, x, ())


def test_a_module_decodes_each_draw_once_for_all_radii(build):
    vae, x = build("unlowered"), torch.rand(3, 1, 8, 8).double()
    calls = []
    vae.decoder.register_forward_hook(lambda module, inputs, out: calls.append(len(out)))
    robust_probability(vae, x, 0.3, samples=40)  # looks at the modules as well
    calls.clear()
    robust_probability(vae, x, 0.3, samples=40)
    once = sum(calls)
    calls.clear()
    robust_probabilities(vae, x, (0.3, 0.4, 0.5, 0.6), samples=40)
    assert sum(calls) == once

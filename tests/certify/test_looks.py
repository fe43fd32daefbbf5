"""Draws that are doubled while they pay: one confidence over all looks, the same draws."""

from __future__ import annotations

import math

import pytest
import torch

import vaefast as vf
from vaefast.certify.looks import Budget, flop_per_draw, gather_evidence, plan
from vaefast.models.prepare import prepare

ALPHA = 1e-3


@pytest.mark.parametrize("most", [1, 999, 1000, 1001, 1900, 50_000, 64_000])
def test_the_looks_share_alpha_and_end_at_the_budget(most: int):
    looks = plan("auto", ALPHA, Budget(samples=most), 1.0)
    assert math.fsum(look.alpha for look in looks) == pytest.approx(ALPHA, rel=1e-12)
    assert looks[-1].samples == most
    assert [look.samples for look in looks] == sorted({look.samples for look in looks})
    assert looks[-1].alpha >= ALPHA / 2


def test_a_number_is_one_look_with_all_of_alpha():
    assert plan(700, ALPHA, Budget(samples=10), 1e12) == [(700, ALPHA)]


def test_dear_decoders_get_fewer_draws():
    looks = plan("auto", ALPHA, Budget(samples=50_000, flop=5e10), 1e7)
    assert looks[-1].samples == 5000


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"flop": 0.0}, {"seconds": -1.0}])
def test_budgets_that_buy_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="budget"):
        Budget(**wrong)


@pytest.fixture
def prepared(build):
    torch.manual_seed(0)
    return prepare(build("mlp"), torch.rand(6, 1, 4, 4).double(), torch.arange(40, 46))


def test_flop_of_a_decoder_are_two_per_weight_and_place(prepared):
    net = prepared.maps.pixels.lowered
    assert flop_per_draw(prepared) == 2 * sum(w.numel() for w in net.weights)


def test_the_draws_are_those_of_one_long_run(prepared):
    """The last look's bound is Clopper and Pearson's for all draws so far, at its level."""
    looks = plan("auto", ALPHA, Budget(samples=4000), 1.0)
    r = torch.full((6,), 0.5, dtype=torch.float64)
    found = gather_evidence(prepared, r, looks, seed=3)
    vae, x, index = prepared.vae, prepared.x, prepared.index
    for look in looks:
        given = {"seed": 3, "index": index, "samples": look.samples, "alpha": look.alpha}
        whole = vf.certify.robust_probability(vae, x, 0.5, **given)
        ended = found.samples == look.samples
        assert bool((found.p_lower >= whole.p_lower)[ended].all())
        if look is looks[-1]:
            assert bool((found.p_lower == whole.p_lower)[ended].any()) or not bool(ended.any())


def test_an_input_without_hope_is_left_alone_and_nan_draws_nothing(prepared):
    looks = plan("auto", ALPHA, Budget(samples=8000), 1.0)
    r = torch.tensor([1e-6, 1e-6, torch.nan, 100.0, 100.0, 0.5], dtype=torch.float64)
    found = gather_evidence(prepared, r, looks, seed=0)
    assert found.samples[:3].tolist() == [1000, 1000, 0]
    assert found.p_lower[:2].tolist() == [0.0, 0.0]
    assert bool(found.p_lower[2].isnan())
    # all hits: the bound rises with each doubling
    assert found.samples[3:5].tolist() == [8000, 8000]
    assert found.p_lower[3] == pytest.approx((ALPHA / 2) ** (1 / 8000))


def test_rows_do_not_depend_on_the_batch(prepared):
    looks = plan("auto", ALPHA, Budget(samples=4000), 1.0)
    r = torch.linspace(0.2, 0.9, 6, dtype=torch.float64)
    whole = gather_evidence(prepared, r, looks, seed=0)
    for row in range(6):
        own = gather_evidence(prepared.at(slice(row, row + 1)), r[row : row + 1], looks, seed=0)
        assert own.p_lower[0] == whole.p_lower[row]
        assert own.samples[0] == whole.samples[row]


def test_the_share_of_bounds_above_the_truth_is_at_most_alpha():
    """A decoder whose hits are known: looks stop by what they saw, and the level still holds."""
    torch.manual_seed(1)
    alpha, runs, p = 0.05, 4000, 0.97
    looks = plan("auto", alpha, Budget(samples=8000), 1.0)
    draws = torch.rand(runs, looks[-1].samples) < p
    bound = torch.zeros(runs, dtype=torch.float64)
    for look in looks:
        hits = draws[:, : look.samples].sum(1)
        own = vf.certify.clopper_pearson(hits, look.samples, look.alpha)
        bound = torch.maximum(bound, own)
    wrong = int((bound > p).sum())
    assert wrong <= alpha * runs + 3 * math.sqrt(alpha * runs)
    assert wrong > 0

"""The table of scale costs: every entry is proved, and what is read off it is tolerated."""

from __future__ import annotations

import pytest
import torch

from vaefast.certify.scale_costs import COSTS, NONE, QUANTILES, SCALES, cost_at
from vaefast.certify.tolerance import scale_cost, tolerates


def test_every_entry_is_proved():
    q, e = torch.meshgrid(torch.tensor(QUANTILES), torch.tensor(SCALES), indexing="ij")
    costs = torch.tensor(COSTS)
    there = costs != NONE
    q, e, shift = q[there].double(), e[there].double(), (q - costs / 1000)[there].double()
    assert int(there.sum()) > 250
    assert bool((shift >= 0).all())
    exactly = torch.tensor(SCALES, dtype=torch.float64).expand(len(QUANTILES), -1)[there]
    assert bool(tolerates(shift, exactly, torch.special.ndtr(q)).all())


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_is_between_the_entries_is_tolerated_by_the_worst_event_of_one_latent(sign: float):
    """N(0, 1) to N(Δ, e^2E), and of all events of probability Φ(q) the one that loses most."""
    generator = torch.Generator().manual_seed(0)
    q = 0.2 + 4.0 * torch.rand(150, 1, generator=generator, dtype=torch.float64)
    e = 0.6 * torch.rand(150, 1, generator=generator, dtype=torch.float64)
    shift = (q - cost_at(q, e)).clamp(min=0.0)
    assert int((shift > 0).sum()) > 100
    z = torch.linspace(-12.0, 12.0, 24_001, dtype=torch.float64).expand(150, -1)
    before = torch.exp(-0.5 * z.square())
    after = torch.exp(-0.5 * ((z - shift) * (-sign * e).exp()).square())
    before, after = (t / t.sum(1, keepdim=True) for t in (before, after))
    order = (before / after.clamp(min=1e-300)).argsort(dim=1, descending=True)
    kept = before.gather(1, order).cumsum(1) <= torch.special.ndtr(q)
    held = (after.gather(1, order) * kept).sum(1)
    assert bool((held[shift[:, 0] > 0] > 0.5 - 2e-3).all())  # up to a step of the grid


def test_it_costs_no_more_than_the_mean_first_and_the_less_the_larger_the_quantile():
    q = torch.linspace(0.0, 5.0, 101, dtype=torch.float64)
    for scale in (0.0, 0.005, 0.05, 0.126, 0.3, 0.9):
        cost = cost_at(q, torch.full_like(q, scale))
        assert bool((cost <= scale_cost(torch.tensor([scale], dtype=torch.float64))).all())
        assert bool((cost.diff() <= 0).all())
    assert float(cost_at(torch.tensor([2.3]).double(), torch.tensor([0.1]).double())) < 0.05

"""Whose alpha it is: each input's, or that of a whole run, whatever batches it comes in."""

from __future__ import annotations

import pytest
import torch

from vaefast import certify
from vaefast.certify import Guarantee, best, clopper_pearson, distance, margin, robust_probability
from vaefast.models import MLPVAE


@pytest.fixture
def small():
    vae = MLPVAE((1, 4, 4), hidden=(12,), latent=3, fixed_std=0.6, seed=1).double().eval()
    x = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return vae, x


@pytest.mark.parametrize(("over", "n"), [("input", 1), ("run", 6), (6, 6), (500, 500)])
def test_every_bound_is_one_at_its_share_of_alpha(small, over, n):
    vae, x = small
    own = robust_probability(vae, x, 1.0, samples=300, alpha=0.02, over=over)
    assert torch.equal(own.p_lower, clopper_pearson(own.hits, 300, 0.02 / n))
    assert (own.alpha, own.over) == (0.02, n)
    found = margin(vae, x, 1.0, method="local", samples=300, alpha=0.02, over=over)
    assert torch.equal(found.p_lower, own.p_lower)
    assert (found.alpha, found.over) == (0.02, n)
    assert found.guarantee == (Guarantee.LOCAL if n == 1 else Guarantee.LOCAL_RUN)
    assert found.guarantee.sound
    shared = margin(vae, x, 1.0, method="local", probability=own)
    assert torch.equal(shared.margin, found.margin)
    assert shared.over == n
    far = distance(vae, x, 0.02, samples=300, alpha=0.02, over=over)
    plain = distance(vae, x, 0.02, samples=300, alpha=0.02 / n)
    assert torch.equal(far.distance, plain.distance)
    assert torch.equal(far.samples_required, plain.samples_required)
    assert (far.over, far.alpha, far.guarantee) == (n, 0.02, found.guarantee)


@pytest.mark.parametrize("method", ["local", "anchors", "best"])
def test_a_batch_of_a_run_gets_what_it_gets_in_the_run(small, method):
    vae, x = small
    options = {"method": method, "samples": 3000, "alpha": 0.05}
    whole = margin(vae, x[:3], 1.5, over="run", **options)
    part = margin(vae, x[1:3], 1.5, over=3, index=torch.arange(1, 3), **options)
    assert torch.allclose(part.margin, whole.margin[1:], rtol=1e-6)
    assert (part.alpha, part.over, part.guarantee) == (0.05, 3, whole.guarantee)
    alone = margin(vae, x[:3], 1.5, method=method, samples=3000, alpha=0.05 / 3)
    assert torch.equal(alone.margin, whole.margin)
    assert (alone.over, alone.guarantee) == (1, Guarantee.LOCAL)


def test_of_all_inputs_at_once_no_more_than_alpha_fail():
    """200 runs of 20 inputs with p known: a run fails if any of its bounds is above p."""
    generator = torch.Generator().manual_seed(0)
    p, alpha, n, samples = 0.9, 0.2, 20, 150
    hits = (torch.rand(200, n, samples, generator=generator) < p).sum(2)
    shared = clopper_pearson(hits.flatten(), samples, alpha / n).view(200, n)
    assert int((shared > p).any(1).sum()) <= 0.2 * 200
    own = clopper_pearson(hits.flatten(), samples, alpha).view(200, n)
    assert int((own > p).any(1).sum()) > 0.5 * 200


def test_what_shares_one_probability_does_not_add_up(small):
    vae, x = small
    own = robust_probability(vae, x, 1.0, samples=300, alpha=0.02)
    affine, both = (
        margin(vae, x, 1.0, method="local", form=form, probability=own)
        for form in ("affine", "smaller")
    )
    shared = best(affine, both)
    assert shared.alpha == 0.02
    assert shared.samples.tolist() == [300] * 6
    other = margin(vae, x, 1.0, method="local", samples=300, alpha=0.02, seed=5)
    assert best(affine, both, other).alpha == pytest.approx(0.04)
    assert best(other, replace_seed(vae, x)).alpha == pytest.approx(0.04)


def replace_seed(vae, x):
    return margin(vae, x, 1.0, method="local", samples=300, alpha=0.02, seed=6)


def test_what_is_refused(small):
    vae, x = small
    with pytest.raises(ValueError, match=r"over must be at least the 6 rows of x"):
        margin(vae, x, 1.0, method="local", over=5)
    with pytest.raises(ValueError, match='over must be "input", "run" or a number'):
        distance(vae, x, 0.1, over="all")
    with pytest.raises(TypeError, match="over must be a whole number"):
        robust_probability(vae, x, 1.0, over=7.5)
    with pytest.raises(ValueError, match="draws nothing"):
        margin(vae, x, 1.0, method="lipschitz", over="run")
    with pytest.raises(ValueError, match="draws nothing"):
        robust_probability(vae, x, 1.0, method="lipschitz", over="run")
    one, two = (margin(vae, x, 1.0, samples=50, over=over) for over in ("input", "run"))
    with pytest.raises(ValueError, match="shares alpha among 6 inputs, the first among 1"):
        best(one, two)
    brought = robust_probability(vae, x, 1.0, samples=50)
    with pytest.raises(ValueError, match="over = 1, the margin is asked for with over = 6"):
        margin(vae, x, 1.0, probability=brought, over="run")
    assert certify.Guarantee.LOCAL_RUN != certify.Guarantee.LOCAL

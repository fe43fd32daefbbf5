"""The hierarchical model has the densities of torch.distributions, trains, and is saved."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vaefast import data
from vaefast.models import HierarchicalVAE, as_hierarchical, load, save
from vaefast.training import GroupELBO, Step, fit

X = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()


def model(K=3, **options):
    model = HierarchicalVAE((1, 8, 8), K, 4, 3, **options).double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "posterior" in name or "prior" in name:
                p.mul_(5.0)
    return model


def noise_of(model, rows=5, groups=None):
    generator = torch.Generator().manual_seed(1)
    shapes = model.shapes[:groups]
    return [torch.randn(rows, *s, generator=generator).double() for s in shapes]


@pytest.mark.parametrize("K", [2, 3, 4, 5])
def test_the_parts_of_the_bound(K):
    own = model(K)
    path = own.posterior_path(X, noise := noise_of(own))
    logp, kl = own.bound(X, noise)
    assert len(path) == len(kl) == len(own.shapes) == K
    z = [group.z for group in path]
    logits = own.decode(z)
    misfit = torch.nn.functional.binary_cross_entropy_with_logits(logits, X, reduction="none")
    assert torch.allclose(logp, -misfit.flatten(1).sum(1))
    prior = torch.zeros(5).double()
    for k, group in enumerate(path):
        q = Normal(group.mean, torch.exp(0.5 * group.logvar))
        p = Normal(group.prior_mean, torch.exp(0.5 * group.prior_logvar))
        assert torch.allclose(kl[k], kl_divergence(q, p).flatten(1).sum(1))
        assert torch.allclose(group.z, q.mean + q.stddev * noise[k])
        assert torch.allclose(group.log_prob(), q.log_prob(group.z).flatten(1).sum(1))
        prior = prior + p.log_prob(group.z).flatten(1).sum(1)
    assert torch.allclose(own.log_joint(z, X), prior + logp)


@pytest.mark.parametrize("top", [0, 1, 2])
def test_the_priors_path_goes_on_from_any_group(top):
    own = model()
    noise = noise_of(own)
    whole = own.prior_path([], noise)
    z = [group.z for group in whole]
    rest = own.prior_path(z[:top], noise[top:])
    assert len(rest) == 3 - top
    for group, same in zip(rest, whole[top:]):
        assert torch.allclose(group.z, same.z)
    prior = sum(group.log_prob() for group in whole)
    likelihood = own.likelihood_at(own.decode(z)).log_prob(X)
    assert torch.allclose(own.log_joint(z, X), prior + likelihood)
    assert own.g(z).min() >= 0


def test_fewer_noises_give_the_first_groups():
    own = model()
    whole, first = (own.posterior_path(X, noise_of(own, groups=k)) for k in (3, 2))
    assert len(first) == 2
    assert all(torch.equal(a.z, b.z) for a, b in zip(first, whole))


def test_flat_and_back():
    own = model()
    z = noise_of(own)
    assert all(torch.equal(a, b) for a, b in zip(own.unflat(own.flat(z)), z))
    below = own.unflat(own.flat(z[1:]), 1)
    assert all(torch.equal(a, b) for a, b in zip(below, z[1:]))


def test_free_bits_are_not_charged():
    own = model(free_bits=1e6)
    terms = GroupELBO().terms(own, X, Step(torch.Generator().manual_seed(2), 5))
    assert terms["loss"].item() == pytest.approx(3e6 - terms["reconstruction"].mean().item())
    gradient = torch.autograd.grad(terms["loss"], own.priors[0].weight, retain_graph=True)[0]
    own.free_bits = 0.0
    charged = GroupELBO(2.0).terms(own, X, Step(torch.Generator().manual_seed(2), 5))
    kl = sum(charged[f"kl_{k}"].mean() for k in (1, 2, 3))
    assert torch.allclose(charged["loss"], 2 * kl - charged["reconstruction"].mean())
    assert not torch.allclose(
        torch.autograd.grad(charged["loss"], own.priors[0].weight)[0], gradient
    )


def test_it_trains_on_digits_and_goes_on(tmp_path):
    x = data.load("digits").x_train[:300]
    own, whole = (HierarchicalVAE((1, 8, 8), 3, 8, 4, seed=1) for _ in "ab")
    options = {"lr": 3e-3, "progress": False, "batch_size": 64}
    fit(own, x, epochs=2, checkpoint=tmp_path / "run", **options)
    history = fit(own, x, epochs=4, checkpoint=tmp_path / "run", **options)
    assert fit(whole, x, epochs=4, **options) == history
    assert all(torch.equal(p, q) for p, q in zip(own.parameters(), whole.parameters()))
    assert history.loss[-1] < history.loss[0] - 3.0
    assert set(history.terms) == {"reconstruction", "kl_1", "kl_2", "kl_3"}


def test_two_functions_are_enough_to_train():
    own = HierarchicalVAE((1, 8, 8), 2, 4, 3)
    wrapped = as_hierarchical(
        own,
        posterior_path=lambda x, noise: [g[:3] for g in own.posterior_path(x, noise)],
        log_joint=own.log_joint,
        shapes=own.shapes,
    )
    x = data.load("digits").x_train[:300]
    history = fit(wrapped, x, epochs=3, lr=3e-3, progress=False)
    assert history.loss[-1] < history.loss[0]
    assert set(history.terms) == {"log_joint", "log_posterior"}


@pytest.mark.parametrize("K", [2, 5])
def test_it_is_saved_and_loaded(tmp_path, K):
    own = HierarchicalVAE((3, 8, 12), K, 4, 3, "gaussian", 0.3, 2.0, seed=4)
    save(own, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert type(again) is HierarchicalVAE
    assert again.config() == own.config()
    x = torch.rand(2, 3, 8, 12)
    noise = [torch.zeros(2, *s) for s in own.shapes]
    for a, b in zip(own.posterior_path(x, noise), again.posterior_path(x, noise)):
        assert torch.equal(a.z, b.z)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"groups": 1}, ValueError, "groups must be 2 to 5, got 1"),
        ({"groups": 6}, ValueError, "groups must be 2 to 5, got 6"),
        ({"groups": 2.5}, TypeError, "groups must be a whole number"),
        ({"event_shape": (1, 7, 8)}, ValueError, "event_shape must be"),
        ({"likelihood": "poisson"}, ValueError, "likelihood must be one of"),
        ({"free_bits": -1}, ValueError, "free_bits must be at least 0 and finite, got -1"),
        ({"free_bits": math.inf}, ValueError, "free_bits must be at least 0 and finite, got inf"),
        ({"channels": 0}, ValueError, "channels must be at least 1"),
    ],
)
def test_mistakes(options, error, words):
    with pytest.raises(error, match=words):
        HierarchicalVAE(**options)


def test_objectives_of_one_posterior_are_refused():
    with pytest.raises(ValueError, match='"tcvae" needs one Gaussian posterior'):
        fit(HierarchicalVAE((1, 8, 8), 2, 4, 3), X.float(), objective="tcvae")

"""SCVI's interface, by a small module with the names that scvi-tools gives its own."""

import pytest
import torch
from torch import nn
from torch.distributions import Normal, Poisson

import vaefast as vf
from vaefast.models import as_vae

GENES, d, BATCHES = 7, 3, 2


class VAE(nn.Module):
    """Looked up by its class's name and package alone; px is any distribution with a mean."""

    __module__ = "scvi.module._vae"

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.heads = nn.Linear(GENES + BATCHES, 2 * d)
        self.out = nn.Linear(d + BATCHES, GENES)

    def inference(self, x, batch_index):
        one_hot = torch.eye(BATCHES)[batch_index[:, 0]]
        mean, logvar = self.heads(torch.cat([torch.log1p(x), one_hot], 1)).chunk(2, dim=1)
        return {"z": mean, "qz": Normal(mean, torch.exp(0.5 * logvar))}

    def generative(self, z, library, batch_index):
        one_hot = torch.eye(BATCHES)[batch_index[:, 0]]
        share = torch.softmax(self.out(torch.cat([z, one_hot], 1)), dim=1)
        return {"px": Poisson(torch.exp(library) * share)}


class Foreign(VAE):
    __module__ = "elsewhere"


@pytest.fixture
def cells():
    x = torch.randint(0, 30, (5, GENES), generator=torch.Generator().manual_seed(1)).float()
    batch = torch.tensor([[0], [1], [1], [0], [1]])
    return x, {"batch_index": batch, "library": torch.log(x.sum(1, keepdim=True))}


@pytest.mark.parametrize("kind", [VAE, Foreign])
def test_each_cell_goes_with_its_batch_and_size(kind, cells):
    """Foreign: a subclass of the user's is found by its base."""
    module, (x, context) = kind(), cells
    vae = as_vae(module, likelihood="gaussian")
    q = module.inference(x, context["batch_index"])["qz"]
    mean, std = vae.posterior(x, context)
    assert torch.equal(mean, q.loc)
    assert torch.allclose(std, q.scale, rtol=1e-5)
    expected = module.generative(q.loc, **{k: context[k] for k in ("library", "batch_index")})
    assert torch.equal(vae.reconstruct(x, context), expected["px"].mean)
    assert torch.equal(vae.encode(x)[0], module.inference(x, 0 * context["batch_index"])["z"])


def test_the_encoders_side_runs_with_a_context(cells):
    x, context = cells
    vae = as_vae(VAE(), likelihood="gaussian")
    attack = vf.attacks.latent(vae, x, eps=1.0, steps=2, low=0.0, high=100.0, context=context)
    assert (attack.objective > 0).all()
    norm = vf.geometry.frobenius_norm(vae, x, context=context)
    flipped = {**context, "batch_index": 1 - context["batch_index"]}
    assert torch.allclose(norm, vf.geometry.frobenius_norm(vae, x, context=flipped))


class Counts(torch.distributions.NegativeBinomial):
    """With the mean and the dispersion under scvi-tools' names."""

    def __init__(self, mu, theta):
        super().__init__(theta, logits=mu.log() - theta.log())
        self.mu, self.theta = mu, theta


class Counting(VAE):
    gene_likelihood = "nb"

    def __init__(self):
        super().__init__()
        self.px_r = nn.Parameter(torch.linspace(-1, 1, GENES))

    def generative(self, z, library, batch_index):
        mean = super().generative(z, library, batch_index)["px"].mean
        return {"px": Counts(mean, self.px_r.exp())}


def test_counts_are_sampled_under_the_models_own_negative_binomial(cells):
    x, context = cells
    module = Counting()
    vae = as_vae(module)
    assert vae.likelihood == "negative_binomial"
    result = vf.hmc.sample(vae, x, context=context, steps=5, warmup=5, leapfrog=3, seed=1)
    z, energy = result.z[:, 0, -1], result.energy[:, 0, -1]
    px = module.generative(z, context["library"], context["batch_index"])["px"]
    expected = -px.log_prob(x).sum(1) - Normal(0.0, 1.0).log_prob(z).sum(1)
    assert torch.allclose(energy, expected.detach().double(), rtol=1e-5)


def test_zero_inflated_counts_are_refused():
    module = Counting()
    module.gene_likelihood = "zinb"
    with pytest.raises(ValueError, match="'gaussian' for SCVI with gene_likelihood 'zinb'"):
        as_vae(module)
    with pytest.raises(ValueError, match="'gaussian' for SCVI with gene_likelihood None"):
        as_vae(VAE())


def test_a_size_per_cell_is_asked_for(cells):
    x, context = cells
    vae = as_vae(VAE(), likelihood="gaussian")
    with pytest.raises(ValueError, match=r'pass context={"batch_index": \[B, 1\] int64, "library"'):
        vae.reconstruct(x, {"batch_index": context["batch_index"]})

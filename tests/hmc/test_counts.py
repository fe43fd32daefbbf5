"""VAEs of counts: the potential against autograd, calibration, and what is refused."""

import pytest
import torch
from scipy import stats
from torch import nn

import vaefast as vf
from vaefast.elbo import evaluate_elbo
from vaefast.models import VAE, as_vae
from vaefast.models.likelihoods import LikelihoodAt
from vaefast.models.prepare import prepare

D, GENES = 2, 6
CASES = {
    "negative_binomial": {"dispersion": 3.0},
    "per_gene": {"dispersion": torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0, 16.0]).double()},
    "mean": {"dispersion": 2.0, "decoder_output": "mean"},
    "mean_dispersion": {"decoder_output": "mean_dispersion"},
    "categorical": {},
}


class Heads(nn.Module):
    """Counts' means and, where there are two, dispersions."""

    def __init__(self, two):
        super().__init__()
        self.body, self.two = nn.Sequential(nn.Linear(D, 8), nn.Tanh()), two
        self.mean, self.theta = nn.Linear(8, GENES), nn.Linear(8, GENES)

    def forward(self, z):
        h = self.body(z)
        mean = torch.exp(self.mean(h))
        return (mean, torch.exp(0.3 * self.theta(h))) if self.two else mean


def build(name, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, GENES))
        own = name in ("mean", "mean_dispersion")
        decoder = Heads(name == "mean_dispersion") if own else plain
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(GENES, D))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(2.0)
        encoder[1].weight.mul_(0.02)
    return (
        VAE(
            encoder_mean=encoder,
            encoder_logvar=torch.full((D,), -1.0),
            decoder=decoder,
            likelihood="categorical" if name == "categorical" else "negative_binomial",
            event_shape=(2, 3) if name == "categorical" else (GENES,),
            **CASES[name],
        )
        .to(dtype)
        .eval()
    )


def simulated(vae, z, generator):
    """x ~ p(x|z) [n, *event]."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(1 << 30, (), generator=generator)))
        law: LikelihoodAt = vae.likelihood_at(z)
        if law.likelihood == "categorical":
            return torch.distributions.OneHotCategorical(logits=law.out).sample()
        theta = torch.as_tensor(law.params[0]).double()
        logits = law.out - theta.log()
        return torch.distributions.NegativeBinomial(theta, logits=logits).sample()


@pytest.mark.parametrize("name", CASES)
def test_the_energy_is_that_of_torchs_distributions(name):
    vae, generator = build(name), torch.Generator().manual_seed(1)
    x = simulated(vae, torch.randn(3, D, generator=generator).double(), generator)
    result = vf.hmc.sample(vae, x, steps=5, warmup=5, chains=2, leapfrog=3, seed=1)
    z = result.z.flatten(0, 2)
    law, rows = vae.likelihood_at(z), x.repeat_interleave(10, 0)
    if law.likelihood == "categorical":
        logp = torch.distributions.OneHotCategorical(logits=law.out).log_prob(rows).sum(1)
    else:
        theta = torch.as_tensor(law.params[0]).double()
        density = torch.distributions.NegativeBinomial(theta, logits=law.out - theta.log())
        logp = density.log_prob(rows).sum(1)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(result.energy.flatten(), -(logp + prior).detach(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["negative_binomial", "per_gene", "categorical"])
def test_the_decoders_network_moves_the_chains_as_its_module_does(name, monkeypatch):
    vae, generator = build(name), torch.Generator().manual_seed(2)
    x = simulated(vae, torch.randn(3, D, generator=generator).double(), generator)
    options = {"steps": 4, "warmup": 4, "chains": 2, "leapfrog": 3, "seed": 1}
    assert "the decoder's network, fused, and the likelihood of counts" in str(vf.explain(vae, x))
    by_network = vf.hmc.sample(vae, x, **options)
    monkeypatch.setattr("vaefast.hmc.sampler.beside_torch", lambda rows: None)
    by_module = vf.hmc.sample(vae, x, **options)
    torch.testing.assert_close(by_network.z, by_module.z, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(by_network.energy, by_module.energy, rtol=1e-9, atol=1e-9)

    def never(*_):
        raise AssertionError("the module ran")

    monkeypatch.undo()
    monkeypatch.setattr("vaefast.hmc.potential.Decoding.__call__", never)
    vf.hmc.sample(vae, x, **options)


@pytest.mark.parametrize("name", ["negative_binomial", "mean_dispersion", "categorical"])
def test_simulation_based_calibration(name):
    """z* ~ p(z), x ~ p(x|z*): the rank of z* among posterior draws is uniform."""
    vae, rows, draws = build(name), 600, 9
    generator = torch.Generator().manual_seed(9)
    truth = torch.randn(rows, D, generator=generator).double()
    x = simulated(vae, truth, generator)
    options = {"warmup": 60, "steps": 6 * draws, "keep": draws, "leapfrog": 6, "seed": 10}
    result = vf.hmc.sample(vae, x, **options)
    rank = (result.z[:, 0] < truth[:, None]).sum(1)
    for i in range(D):
        counts = torch.bincount(rank[:, i], minlength=draws + 1)
        assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("name", CASES)
def test_every_evaluation_has_the_same_natural_parameters(name):
    """Those of a call's first rows, and those of the later ones, which skip the checks."""
    vae = build(name)
    x, z = torch.ones(3, *vae.event_shape).double(), torch.randn(3, D).double()
    maps = prepare(vae, x).maps
    with torch.no_grad():
        torch.testing.assert_close(maps.decode(z), vae.decode(z), rtol=1e-12, atol=0)
        torch.testing.assert_close(maps.g(z), vae.g(z), rtol=1e-12, atol=0)
        laws = maps.likelihood_at(z), vae.likelihood_at(z)
    torch.testing.assert_close(*(law.log_prob(x) for law in laws), rtol=1e-12, atol=0)


def test_reconstructions_elbo_and_explain():
    vae = build("negative_binomial")
    x = torch.randint(0, 9, (4, GENES), generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        torch.testing.assert_close(vae.reconstruct(x), vae.decode(vae.encode(x)[0]).exp())
    assert evaluate_elbo(vae, x).elbo.isfinite().all()
    text = str(vf.explain(vae, x))
    assert "likelihood of counts, in torch" in text
    distance = vf.attacks.max_damage(vae, x, eps=1.0, norm="l2", steps=2, high=50.0).objective
    assert (distance > 0).all()
    shares = build("categorical")
    one_hot = torch.eye(3).double()[torch.randint(0, 3, (4, 2))]
    with torch.no_grad():
        torch.testing.assert_close(shares.reconstruct(one_hot).sum(-1), torch.ones(4, 2).double())


def test_bad_input_is_told_in_one_line():
    vae = build("negative_binomial")
    with pytest.raises(ValueError, match=r"x must be at least 0 .* got -1; pass counts"):
        vf.hmc.sample(vae, torch.full((2, GENES), -1.0).double(), steps=2)
    parts = {"encoder_mean": nn.Linear(4, 2), "encoder_logvar": torch.zeros(2)}
    parts["decoder"] = nn.Linear(2, 4)
    for options, words in (
        ({"likelihood": "negative_binomial"}, "dispersion must be given with likelihood"),
        (
            {"likelihood": "negative_binomial", "dispersion": -1.0},
            "dispersion must be positive and finite, got -1",
        ),
        ({"likelihood": "gaussian", "dispersion": 1.0}, "dispersion is not taken with"),
        (
            {"likelihood": "categorical", "decoder_output": "probabilities"},
            'decoder_output must be "logits" with likelihood',
        ),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            VAE(**parts, **options)
        assert "\n" not in str(caught.value)
    vae = VAE(**parts, likelihood="negative_binomial", decoder_output="mean_dispersion")
    with pytest.raises(TypeError, match=r"must return \(mean, dispersion\)"):
        vae.likelihood_at(torch.zeros(2, 2))


def test_as_vae_takes_the_dispersion():
    module = nn.Module()
    module.encoder_mean, module.encoder_logvar = nn.Linear(4, 2), nn.Linear(4, 2)
    module.decoder = nn.Sequential(nn.Linear(2, 4))
    vae = as_vae(module, likelihood="negative_binomial", dispersion=torch.ones(4))
    assert torch.equal(vae.likelihood_params[0], torch.ones(4))
    assert as_vae(vae, dispersion=vae._dispersion) is vae


@pytest.mark.parametrize("name", ["mean", "mean_dispersion"])
def test_a_decoder_of_means_is_decoded_to_their_logarithm(name):
    vae, z = build(name), torch.randn(3, D).double()
    with torch.no_grad():
        out = vae.decoder(z)
        mean = out[0] if isinstance(out, tuple) else out
        torch.testing.assert_close(vae.decode(z), mean.log(), rtol=1e-12, atol=0)
        torch.testing.assert_close(vae.g(z), mean, rtol=1e-12, atol=0)

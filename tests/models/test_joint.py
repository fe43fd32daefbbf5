"""A caller's log p(x, z): the chains of the same model as a VAE, and what is refused."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

import vaefast as vf
from vaefast.elbo import evaluate_elbo
from vaefast.models import VAE, from_log_joint

A = torch.tensor([[1.0, 0.2], [0.3, 2.0], [0.0, -0.4]]).double()


def log_joint(z, x):
    return Normal(0.0, 1.0).log_prob(z).sum(1) + Normal(z @ A.T, 0.5).log_prob(x).sum(1)


def images(rows=3):
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_the_chains_are_those_of_the_same_model_as_a_vae():
    decoder = nn.Linear(2, 3, bias=False, dtype=torch.float64)
    with torch.no_grad():
        decoder.weight.copy_(A)
    encoder = nn.Linear(3, 2, dtype=torch.float64)
    vae = VAE(
        encoder_mean=encoder,
        encoder_logvar=torch.zeros(2).double(),
        decoder=decoder,
        likelihood="gaussian",
        obs_std=0.5,
    ).eval()
    own = from_log_joint(log_joint, posterior=lambda x: (encoder(x), x.new_zeros(len(x), 2)))
    options = {"steps": 8, "warmup": 6, "leapfrog": 3, "chains": 2, "seed": 1}
    fused, generic = (vf.hmc.sample(model, images(), **options) for model in (vae, own))
    torch.testing.assert_close(generic.z, fused.z, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(generic.energy, fused.energy, rtol=1e-10, atol=1e-10)


def test_without_a_posterior_the_chains_start_at_the_prior_and_reach_the_law():
    x = images(2)
    result = vf.hmc.sample(
        from_log_joint(log_joint, latents=2),
        x,
        chains=1000,
        warmup=60,
        steps=20,
        leapfrog=6,
        keep="last",
        seed=4,
    )
    covariance = torch.linalg.inv(torch.eye(2) + A.T @ A / 0.25)
    mean = x @ A @ covariance / 0.25
    z = result.z[:, :, 0]
    error = (z.mean(1) - mean) / (covariance.diagonal() / 1000).sqrt()
    assert error.abs().max() < 4.5


def test_its_evidence_is_sandwiched_too():
    x = images(2)
    found = vf.hmc.log_marginal(
        from_log_joint(log_joint, latents=2), x, temperatures=60, chains=16, seed=5
    )
    evidence = MultivariateNormal(
        torch.zeros(3).double(), A @ A.T + 0.25 * torch.eye(3).double()
    ).log_prob(x)
    assert ((found.lower.value - evidence).abs() < 4.5 * found.lower.std_error + 0.02).all()


def test_its_evidence_lower_bound_counts_the_prior_once():
    own = from_log_joint(log_joint, latents=2)
    x = images(2)
    bound = evaluate_elbo(own, x, samples=1000, seed=1).elbo
    quadratic = A.square().sum()  # E_q of |A z|²
    reconstruction = -0.5 * (x.square().sum(1) + quadratic) / 0.25 - 3 * math.log(
        0.5 * math.sqrt(2 * math.pi)
    )
    assert ((bound - reconstruction).abs() < 1.0).all()  # KL(N(0, I) ‖ N(0, I)) = 0


def test_x_of_any_shape_and_range_goes_with_its_row():
    seen = []

    def density(z, x):
        seen.append(tuple(x.shape))
        return -0.5 * (z - x.flatten(1).sum(1, keepdim=True)).square().sum(1)

    x = 100.0 * images(4)[:, :2].reshape(4, 1, 2)
    init = x.sum(2).expand(4, 3)
    model = from_log_joint(density, latents=3)
    result = vf.hmc.sample(model, x, init=init, chains=2, steps=30, warmup=30, seed=6)
    assert set(seen) == {(8, 1, 2)}
    assert ((result.z.mean((1, 2)) - init).abs() < 3).all()


def test_what_needs_reconstructions_or_a_decoder_is_refused():
    model, x = from_log_joint(log_joint, latents=2), images()
    for call in (
        lambda: vf.attacks.max_damage(model, x.sigmoid(), eps=0.1),
        lambda: vf.certify.robust_probability(model, x, 1.0, samples=10),
        lambda: vf.hmc.defend(model, x, steps=3, warmup=3),
    ):
        with pytest.raises(TypeError, match="has a density and no reconstructions"):
            call()
    for mass in ("pullback", "dense"):
        with pytest.raises(ValueError, match="a joint density has no decoder"):
            vf.hmc.sample(model, x, steps=3, warmup=3, mass=mass)


def test_explain_and_refusals():
    text = str(vf.explain(from_log_joint(log_joint, latents=2), images()))
    assert "autograd through log_joint" in text
    assert "log p(x, z) of the caller's" in text
    for arguments, words in (
        ({}, r"needs latents= .* or posterior="),
        ({"latents": 2, "posterior": log_joint}, "not both"),
    ):
        with pytest.raises(TypeError, match=words):
            from_log_joint(log_joint, **arguments)
    with pytest.raises(TypeError, match="log_joint must be a function, got int"):
        from_log_joint(3, latents=2)
    with pytest.raises(
        ValueError, match=r"log_joint must return one number per row, \[n\] = \[3\]"
    ):
        vf.hmc.sample(from_log_joint(lambda z, x: -z.square(), latents=2), images(), steps=2)
    with pytest.raises(TypeError, match=r"log_joint must return a tensor \[n\] = \[3\], got float"):
        vf.hmc.sample(from_log_joint(lambda z, x: 0.0, latents=2), images(), steps=2)

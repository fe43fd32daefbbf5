"""The objectives that protect: each against plain float64 formulas; gradients and settings."""

import math

import formulas
import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.models import MLPVAE, HierarchicalVAE, as_hierarchical, as_vae
from vaefast.training import (
    AVAE,
    TCVAE,
    Adversarial,
    Fisher,
    GroupELBO,
    Mixup,
    Seatbelt,
    Smooth,
    Step,
    decompose_kl,
    fit,
)
from vaefast.training.smooth import coupling_cost

N = 7
SINGLE = {
    "mixup": Mixup(2.0, 0.7),
    "mixup, published": Mixup(2.0, 0.7, "published"),
    "smooth": Smooth(2.0, 3.0, eps=0.2, steps=2),
    "avae": AVAE(2.0, 0.6, 0.9),
    "fisher": Fisher(2.0, 0.3, probes=2),
    "adversarial": Adversarial(2.0, 0.3, eps=0.2, steps=2),
}


def model(seed=0):
    vae = MLPVAE((1, 4, 4), (12,), 3, seed=seed).double()
    with torch.no_grad():
        vae.encoder.logvar.bias.fill_(-1.0)
    return vae


def rows(count=N, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 1, 4, 4, generator=generator, dtype=dtype)


def step(seed=3, training=True):
    return Step(torch.Generator().manual_seed(seed), 100, training=training)


def normals(generator, count=N):
    return torch.randn(count, 3, generator=generator, dtype=torch.float64)


def mix_of(generator):
    share = torch.rand(1, generator=generator, dtype=torch.float64)
    return torch.sin(0.5 * math.pi * share) ** 2, torch.randperm(N, generator=generator)


@pytest.mark.parametrize("pairing", ["same", "published"])
def test_mixup_is_the_published_sum(pairing):
    vae, x, generator = model(), rows(), torch.Generator().manual_seed(3)
    found = Mixup(2.0, 0.7, pairing).terms(vae, x, step())
    mean, logvar = formulas.posterior(vae, x)
    z = mean + (0.5 * logvar).exp() * normals(generator)
    share, order = mix_of(generator)
    x_m = share * x + (1 - share) * x[order]
    if pairing == "published":
        share, order = mix_of(generator)
    z_m = share * z + (1 - share) * z[order]
    q_m = formulas.posterior(vae, x_m)
    other = q_m[0] + (0.5 * q_m[1]).exp() * normals(generator)
    mixed = formulas.normal_kl(*q_m) - formulas.log_bernoulli(vae, x_m, z_m)
    mixed = mixed + (z_m - other).square().sum(1)
    own = 2.0 * formulas.normal_kl(mean, logvar) - formulas.log_bernoulli(vae, x, z)
    assert torch.allclose(found["loss"], own + 0.7 * mixed, rtol=1e-10)
    assert torch.allclose(found["latent_gap"], (z_m - other).square().sum(1), rtol=1e-10)


def test_mixup_draws_shares_of_the_arcsine_law():
    generator = torch.Generator().manual_seed(0)
    source = Step(generator, 9)
    from vaefast.training.mixup import _Mix

    shares = torch.stack([_Mix.drawn(rows(2), source).share for _ in range(4000)])
    law = torch.distributions.Beta(0.5, 0.5)
    assert abs(shares.mean() - law.mean) < 4 * math.sqrt(law.variance / 4000)
    assert abs(shares.var() - law.variance) < 0.01
    below = (shares < 0.1).double().mean()
    assert abs(below - 2 / math.pi * math.asin(math.sqrt(0.1))) < 0.03


@pytest.mark.parametrize("coupling", [1e-3, 0.5, 10.0, 1e4])
def test_the_coupling_cost_is_the_minimum_over_couplings(coupling):
    generator = torch.Generator().manual_seed(2)
    m1, l1, m2, l2 = torch.randn(4, 20, 3, generator=generator, dtype=torch.float64)
    expected = formulas.pair_cost((m1, l1), (m2, l2), coupling)
    assert torch.allclose(coupling_cost(m1, l1, m2, l2, coupling), expected, rtol=1e-7)


def test_a_strong_coupling_is_half_gamma_times_the_wasserstein_distance():
    generator = torch.Generator().manual_seed(2)
    moments = torch.randn(4, 20, 3, generator=generator, dtype=torch.float64)
    distance = vf.attacks.divergences.w2(*moments)
    assert torch.allclose(coupling_cost(*moments, 1e8) * 2e-8, distance, atol=1e-6)


def attacked(attack, vae, x, generator, **options):
    seed = int(torch.randint(1 << 62, (), generator=generator))
    return attack(vae.eval(), x, seed=seed, eps=0.2, norm="linf", steps=2, **options).x_adv


def test_smooth_couples_the_posterior_with_that_of_the_attacked_input():
    vae, x, generator = model(), rows(), torch.Generator().manual_seed(3)
    found = SINGLE["smooth"].terms(vae, x, step())
    other = attacked(vf.attacks.latent, vae, x, generator, divergence="w2")
    mean, logvar = formulas.posterior(vae, x)
    z = mean + (0.5 * logvar).exp() * normals(generator)
    cost = formulas.pair_cost((mean, logvar), formulas.posterior(vae, other), 3.0)
    own = 2.0 * formulas.normal_kl(mean, logvar) - formulas.log_bernoulli(vae, x, z)
    assert torch.allclose(found["loss"], own + cost, rtol=1e-7)
    assert (other - x).abs().max() <= 0.2
    assert (other - x).abs().max() > 0.1


def test_avae_is_the_expected_kl_to_the_transition():
    torch.manual_seed(0)
    vae, x, generator = model(), rows(), torch.Generator().manual_seed(3)
    found = SINGLE["avae"].terms(vae, x, step())
    mean, logvar = formulas.posterior(vae, x)
    z = mean + (0.5 * logvar).exp() * normals(generator)
    seen = formulas.posterior(vae, torch.sigmoid(vae.decoder(z)))
    draws = [formulas.transition_kl(seen, (mean, logvar), 0.9, 2000) for _ in range(4)]
    cost = torch.stack(draws)
    error = cost.std(0) / 2 + 0.02 * cost.mean(0)
    assert ((found["consistency"] - cost.mean(0)).abs() < 4 * error).all()
    own = 2.0 * formulas.normal_kl(mean, logvar) - formulas.log_bernoulli(vae, x, z)
    assert torch.allclose(found["loss"], own + 0.6 * found["consistency"], rtol=1e-10)


def test_adversarial_reconstructs_the_input_from_the_attacked_one():
    vae, x, generator = model(), rows(), torch.Generator().manual_seed(3)
    found = SINGLE["adversarial"].terms(vae, x, step())
    samples = {"noise_samples": 1, "fresh_samples": 1}
    other = attacked(vf.attacks.max_damage, vae, x, generator, **samples)
    losses = []
    for point in (x, other):
        mean, logvar = formulas.posterior(vae, point)
        z = mean + (0.5 * logvar).exp() * normals(generator)
        losses.append(2.0 * formulas.normal_kl(mean, logvar) - formulas.log_bernoulli(vae, x, z))
    assert torch.allclose(found["loss"], 0.7 * losses[0] + 0.3 * losses[1], rtol=1e-10)


def grouped():
    """With posteriors that differ, on both sides of the free bits."""
    vae = HierarchicalVAE((1, 8, 8), 3, channels=4, latent=3, free_bits=0.2).double()
    with torch.no_grad():
        spread = torch.randn(vae.top_posterior.weight.shape, generator=torch.Generator())
        vae.top_posterior.weight.add_(40.0 * spread)
    return vae


def test_seatbelt_weighs_the_total_correlation_of_the_top_group():
    generator = torch.Generator().manual_seed(3)
    vae, x = grouped(), torch.linspace(0, 1, N * 64, dtype=torch.float64).view(N, 1, 8, 8)
    found = Seatbelt(4.0).terms(vae, x, step())
    noise = [
        torch.randn(N, *shape, generator=generator, dtype=torch.float64) for shape in vae.shapes
    ]
    path = vae.posterior_path(x, noise)
    logp = vae.likelihood_at(vae.decode([group.z for group in path])).log_prob(x)
    kl, parts = 0.0, []
    for group in path:
        q = (group.mean.flatten(1), group.logvar.flatten(1))
        part = formulas.normal_kl(*q, group.prior_mean.flatten(1), group.prior_logvar.flatten(1))
        kl = kl + part.mean().clamp_min(0.2)
        parts.append(part.mean() > 0.2)
    assert any(parts)
    assert not all(parts)
    top = path[0]
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(top.z).sum(1)
    tc = decompose_kl(top.mean, top.logvar, top.z, prior, 100).total_correlation
    assert tc.std() > 0.01
    assert torch.allclose(found["loss"], kl - logp.mean() + 3.0 * tc.mean(), rtol=1e-10)
    one, plain = Seatbelt().terms(vae, x, step()), GroupELBO().terms(vae, x, step())
    assert torch.equal(one["loss"], plain["loss"])


@pytest.mark.parametrize("name", [*SINGLE, "seatbelt"])
def test_gradients_reach_all_parameters(name):
    objective = Seatbelt(3.0) if name == "seatbelt" else SINGLE[name]
    vae = grouped() if name == "seatbelt" else model()
    x = torch.rand(N, *vae.event_shape, dtype=torch.float64)
    objective.terms(vae, x, step())["loss"].mean().backward()
    for parameter_name, parameter in vae.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", SINGLE)
def test_modes_and_gradients_of_the_caller_stay(name):
    vae = model().train()
    vae.decoder.eval()
    modes = [m.training for m in vae.modules()]
    with torch.no_grad():
        terms = SINGLE[name].terms(vae, rows(), step(training=False))
    assert modes == [m.training for m in vae.modules()]
    assert all(p.grad is None for p in vae.parameters())
    assert all(t.isfinite().all() for t in terms.values())


class Conditional(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(16 + 2, 6), nn.Linear(3 + 2, 16)

    def encode(self, x, y):
        return self.up(torch.cat([x.flatten(1), y], 1)).chunk(2, 1)

    def decode(self, z, y):
        return self.down(torch.cat([z, y], 1)).view(-1, 1, 4, 4)


@pytest.mark.parametrize("name", SINGLE)
def test_a_conditional_vae_is_trained_too(name):
    torch.manual_seed(0)
    vae = as_vae(Conditional(), encoder_output="logvar", decoder_output="logits")
    y = nn.functional.one_hot(torch.arange(12) % 2, 2).float()
    x = rows(12, torch.float32)
    history = fit(vae, x, objective=SINGLE[name], context={"y": y}, epochs=1, progress=False)
    assert math.isfinite(history.loss[0])


def test_mixup_refuses_a_context_that_cannot_be_mixed():
    vae = as_vae(Conditional(), encoder_output="logvar", decoder_output="logits")
    y = nn.functional.one_hot(torch.arange(N) % 2, 2)
    given = Step(torch.Generator(), 9, {"y": y})
    with pytest.raises(TypeError, match="y must be floating"):
        Mixup().terms(vae, rows(dtype=torch.float32), given)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Mixup(weight=-1), ValueError, "weight must be at least 0 and finite, got -1"),
        (lambda: Mixup(pairing="none"), ValueError, "pairing must be one of 'same', 'published'"),
        (lambda: Smooth(coupling=0.0), ValueError, "coupling must be positive and finite, got 0"),
        (lambda: Smooth(eps=math.inf), ValueError, "eps must be positive and finite, got inf"),
        (lambda: Smooth(norm="l1"), ValueError, "norm must be one of 'linf', 'l2'"),
        (lambda: Adversarial(steps=0), ValueError, "steps must be at least 1, got 0"),
        (lambda: Adversarial(share=1.5), ValueError, r"share must be in \[0, 1\], got 1.5"),
        (lambda: AVAE(rho=1.0), ValueError, r"rho must be in \(0, 1\), got 1"),
        (lambda: Fisher(probes=1.5), TypeError, "probes must be a whole number"),
        (lambda: Seatbelt(2.0, "mss"), ValueError, "estimator must be one of"),
    ],
)
def test_settings_are_checked(make, error, words):
    with pytest.raises(error, match=words):
        make()


def wrapped_groups():
    two = grouped()
    return as_hierarchical(
        two, posterior_path=two.posterior_path, log_joint=two.log_joint, shapes=two.shapes
    )


@pytest.mark.parametrize(
    ("vae", "objective", "words"),
    [
        (grouped, "mixup", r'objective "mixup" needs one Gaussian .* "elbo", "beta", "seatbelt"$'),
        (grouped, Fisher(), "Fisher needs one Gaussian posterior, got a hierarchical VAE"),
        (model, "seatbelt", r'objective "seatbelt" needs a hierarchical VAE, .* "tcvae"'),
        (model, Seatbelt(), "Seatbelt needs a hierarchical VAE, got one posterior"),
        (wrapped_groups, "seatbelt", "Seatbelt needs a vaefast.models.HierarchicalVAE, got"),
    ],
)
def test_a_model_of_another_kind_is_refused(vae, objective, words):
    x = rows(9) if vae is model else torch.rand(9, 1, 8, 8, dtype=torch.float64)
    with pytest.raises(ValueError, match=words) as error:
        fit(vae(), x, objective=objective, epochs=1, progress=False)
    assert "\n" not in str(error.value)


def test_avae_refuses_another_prior():
    vae = model()
    vae.prior = torch.distributions.MultivariateNormal(torch.zeros(3), torch.eye(3))
    with pytest.raises(ValueError, match=r'"avae" needs the prior N\(0, I\)'):
        fit(vae, rows(), objective="avae", epochs=1, progress=False)


def test_a_name_has_the_defaults_of_its_class():
    from vaefast.training.objectives import find

    kinds = {"mixup": Mixup, "smooth": Smooth, "avae": AVAE, "fisher": Fisher, "tcvae": TCVAE}
    for name, kind in {**kinds, "adversarial": Adversarial}.items():
        assert find(name, 2.0, model()) == kind(2.0)
    assert find("seatbelt", 2.0, grouped()) == Seatbelt(2.0)

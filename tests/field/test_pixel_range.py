"""Elsewhere images from 0 to 255, or from -1 to 1, went into a Bernoulli model without a word: an
ELBO of +5579 nats, a margin of 6604. Here every function that evaluates log p(x|z), and those of
certify, refuse them, with the remedy that brings them into [0, 1] without spoiling them.
"""

import re
from pathlib import Path

import pytest
import torch

import vaefast as vf

X = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
X[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
VAE = vf.models.MLPVAE((1, 4, 4), hidden=(8,), latent=3).eval()
GROUPS = vf.models.HierarchicalVAE((1, 8, 8), 2, 4, 3).eval()
CHAIN = {"steps": 3, "warmup": 3, "leapfrog": 2}


def _wide(x):
    """Images of a size that a hierarchical model takes."""
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


CALLS = {
    "hmc.sample": lambda x: vf.hmc.sample(VAE, x, **CHAIN),
    "hmc.sample, kuzina2022": lambda x: vf.hmc.sample(VAE, x, schedule="kuzina2022", steps=4),
    "hmc.defend": lambda x: vf.hmc.defend(VAE, x, **CHAIN),
    "hmc.tune": lambda x: vf.hmc.tune(VAE, x, leapfrogs=(2,), steps=3, warmup=3),
    "evaluate_elbo": lambda x: vf.training.evaluate_elbo(VAE, x),
    "fit": lambda x: vf.training.fit(VAE, x, epochs=1, progress=False),
    "fit, tcvae": lambda x: vf.training.fit(VAE, x, objective="tcvae", epochs=1, progress=False),
    "fit, mixup": lambda x: vf.training.fit(VAE, x, objective="mixup", epochs=1, progress=False),
    "fit, groups": lambda x: vf.training.fit(GROUPS, _wide(x), epochs=1, progress=False),
    "hmc.sample_groups": lambda x: vf.hmc.sample_groups(GROUPS, _wide(x), **CHAIN),
    "hmc.defend_groups": lambda x: vf.hmc.defend_groups(GROUPS, _wide(x), **CHAIN),
    "attacks.latent_groups": lambda x: vf.attacks.latent_groups(GROUPS, _wide(x), eps=0.1, steps=2),
    "likelihood_degradation": lambda x: vf.metrics.likelihood_degradation(VAE, x, x),
    "log_likelihood": lambda x: VAE.log_likelihood(x, torch.zeros(len(x), 3)),
    "robust_probability": lambda x: vf.certify.robust_probability(VAE, x, 1.0, samples=9),
    "margin": lambda x: vf.certify.margin(VAE, x, 1.0, samples=9),
    "empirical_margin": lambda x: vf.certify.empirical_margin(
        VAE, x, 1.0, grid=1, bisections=1, restarts=1, steps=1, samples=9
    ),
}
WRONG = {
    "0 to 255": (255 * X, r"from 0 to 255; pass x / 255, or use"),
    "0 to 65535": (65535 * X, r"pass x / 65535 "),
    "-1 to 1": (2 * X - 1, r"pass \(x \+ 1\) / 2, or use"),
    "a little above 1": (1.0000002 * X, r"to 1\.0000002\d*; pass x\.clip\(0, 1\)"),
    "a little below 0": (X - 1e-6, r"pass x\.clip\(0, 1\)"),
    "standardised": ((X - 0.13) / 0.31, r'rescale it to \[0, 1\], or use likelihood="gaussian"$'),
    "bytes": ((255 * X).byte(), r"pass x\.float\(\) / 255$"),
    "two bytes": ((65535 * X).int().to(torch.uint16), r"pass x\.float\(\) / 65535$"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", CALLS)
def test_pixels_outside_of_the_unit_interval_are_refused(name, wrong):
    x, remedy = WRONG[wrong]
    with pytest.raises((ValueError, TypeError), match=remedy) as caught:
        CALLS[name](x)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["evaluate_elbo", "margin", "hmc.sample"])
def test_rows_that_are_not_finite_are_no_wrong_range(name):
    x = X.clone()
    x[1, 0, 0, 0], x[2, 0, 0, 0] = torch.nan, torch.inf
    CALLS[name](x)
    x[0, 0, 0, 0] = 255.0
    with pytest.raises(ValueError, match="from 0 to 255; pass x / 255"):
        CALLS[name](x)


def test_the_attacked_image_is_named_by_its_name():
    with pytest.raises(TypeError, match=r"x_adv must be floating, .* pass x_adv\.float\(\) / 255"):
        vf.metrics.likelihood_degradation(VAE, X, (255 * X).byte())


ATTACKS = {
    "latent": lambda x: vf.attacks.latent(VAE, x, eps=0.1, steps=1),
    "target": lambda x: vf.attacks.latent(VAE, X, eps=0.1, steps=1, target=x),
    "max_damage": lambda x: vf.attacks.max_damage(VAE, x, eps=0.1, steps=1),
    "geometric": lambda x: vf.attacks.geometric(VAE, x, eps=0.1),
    "spectral_norm": lambda x: vf.geometry.spectral_norm(VAE, x),
    "explain": lambda x: vf.explain(VAE, x),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_bytes_are_told_their_range_everywhere(name):
    with pytest.raises(TypeError, match=r"must be floating, got uint8; pass \w+\.float\(\) / 255$"):
        ATTACKS[name]((255 * X).byte())


def test_a_gaussian_takes_any_range():
    vae = vf.models.MLPVAE((1, 4, 4), hidden=(8,), latent=3, likelihood="gaussian").eval()
    vf.certify.margin(vae, 255 * X, 1.0, samples=9)
    vf.training.evaluate_elbo(vae, 2 * X - 1)


EVALUATES = {  # every file that evaluates log p(x|z), and which calls above go through it
    "elbo.py": ("evaluate_elbo", "fit"),
    "hmc/generic.py": ("hmc.sample",),
    "hmc/potential.py": ("hmc.sample",),
    "hmc/target.py": ("hmc.sample",),
    "models/hierarchical.py": ("hmc.sample_groups", "attacks.latent_groups", "fit, groups"),
    "metrics/degradation.py": ("likelihood_degradation",),
    "models/likelihoods.py": ("log_likelihood",),
    "models/vae.py": ("log_likelihood",),
    "training/mixup.py": ("fit, mixup",),
    "training/total_correlation.py": ("fit, tcvae",),
}


def test_no_file_that_evaluates_the_likelihood_is_without_a_test():
    package = Path(vf.__file__).parent
    calls = re.compile(
        r"likelihood_at\([^)]*\)\.log_prob\(|likelihood_at\(z, [^)]*\)+\.log_prob\("
        r"|ops\.(log_likelihood|net_potential|net_chain|net_trajectory)\("
    )
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if calls.search(path.read_text()) and path.parent.name not in ("ops", "reference")
    }
    assert found <= EVALUATES.keys(), found - EVALUATES.keys()

"""Elsewhere an input of the wrong shape or dtype was refused in terms of internals: the shape of a
probe of two rows, a matrix product's sizes, a network's weights. Here the error speaks of the
caller's x and names the reshape or conversion that helps.
"""

import pytest
import torch
from torch import nn

import vaefast as vf

X = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def lowered():
    return vf.models.MLPVAE((1, 8, 8), hidden=(8,), latent=3).eval()


def convolutional():
    return vf.models.ConvVAE((1, 8, 8), channels=4, latent=3).eval()


def flat(event=None):
    torch.manual_seed(0)
    return vf.VAE(
        encoder_mean=nn.Linear(64, 3),
        encoder_logvar=torch.zeros(3),
        decoder=nn.Linear(3, 64),
        likelihood="gaussian",
        event_shape=event,
    ).eval()


def learns_its_shape():
    """Nothing says what shape its inputs have."""
    return vf.VAE(
        encoder_mean=nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3)),
        encoder_logvar=torch.zeros(3),
        decoder=nn.Sequential(nn.Linear(3, 64), nn.Unflatten(1, (1, 8, 8))),
        likelihood="gaussian",
    ).eval()


CALLS = {
    "spectral_norm": lambda v, x: vf.geometry.spectral_norm(v, x, of="decoder"),
    "frobenius_norm": lambda v, x: vf.geometry.frobenius_norm(v, x),
    "jacobian": lambda v, x: vf.geometry.jacobian(v, x),
    "pullback_spectrum": lambda v, x: vf.geometry.pullback_spectrum(v, x, of="reconstruction"),
    "robustness_scores": lambda v, x: vf.geometry.robustness_scores(v, x),
    "robust_probability": lambda v, x: vf.certify.robust_probability(v, x, 1.0),
    "margin": lambda v, x: vf.certify.margin(v, x, 1.0),
    "empirical_margin": lambda v, x: vf.certify.empirical_margin(v, x, 1.0),
    "evaluate_elbo": lambda v, x: vf.training.evaluate_elbo(v, x),
    "likelihood_degradation": lambda v, x: vf.metrics.likelihood_degradation(v, x, x),
}
SHAPES = {
    "no channel": (lowered, X[:, 0], r"got \[3, 8, 8\]; pass x\.unsqueeze\(1\)$"),
    "one image": (lowered, X[0], r"got \[1, 8, 8\]; pass x\[None\]$"),
    "one image, no channel": (lowered, X[0, 0], r"got \[8, 8\]; pass x\[None, None\]$"),
    "flat rows": (
        convolutional,
        X.flatten(1),
        r"got \[3, 64\]; pass x\.unflatten\(1, \(1, 8, 8\)\)$",
    ),
    "channels last": (convolutional, X.movedim(1, -1), r"pass x\.movedim\(-1, 1\)$"),
    "another size": (convolutional, X[..., :7], r"got \[3, 1, 8, 7\]$"),
    "images for flat rows": (lambda: flat((64,)), X, r"got \[3, 1, 8, 8\]; pass x\.flatten\(1\)$"),
    "a channel too much": (lambda: flat((8, 8)), X, r"got \[3, 1, 8, 8\]; pass x\.squeeze\(1\)$"),
    "images, unknown shape": (flat, X, r"take x \[B, 1, 8, 8\] \(.*\); pass x\.flatten\(1\)$"),
    "no channel, unknown": (
        learns_its_shape,
        X[:, 0],
        r"x \[B, 8, 8\] .*; pass x\.unsqueeze\(1\)$",
    ),
    "last, unknown": (learns_its_shape, X.movedim(1, -1), r"pass x\.movedim\(-1, 1\)$"),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("name", CALLS)
def test_shapes_are_the_callers(name, kind):
    build, x, words = SHAPES[kind]
    with pytest.raises(ValueError, match=words) as caught:
        CALLS[name](build(), x)
    assert "\n" not in str(caught.value)


def test_an_error_that_no_reshape_heals_is_the_modules_own():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("no such table")

    vae = vf.VAE(encoder_mean=Broken(), encoder_logvar=torch.zeros(3), decoder=nn.Linear(3, 64))
    with pytest.raises(RuntimeError, match=r"^no such table$"):
        vf.geometry.spectral_norm(vae.eval(), X.flatten(1))


@pytest.mark.parametrize("prime", [False, True], ids=["first call", "later call"])
@pytest.mark.parametrize("build", [lowered, convolutional])
@pytest.mark.parametrize("name", CALLS)
def test_float64_inputs_of_a_float32_model_are_told_so(name, build, prime):
    vae = build()
    if prime:
        vf.geometry.spectral_norm(vae, X)
    with pytest.raises(TypeError, match=r"^x must be float32 like the model, got float64; pass x"):
        CALLS[name](vae, X.double())


@pytest.mark.parametrize("build", [lowered, convolutional])
@pytest.mark.parametrize("name", [*CALLS][:4])
def test_half_precision_models_take_inputs_of_every_dtype(name, build):
    vae = build().half()
    for x in (X.half(), X, X.double()):
        CALLS[name](vae, x)


def test_the_attacked_inputs_dtype_is_theirs():
    words = r"^x_adv must be float32 like x, got float64; pass x_adv\.to\(x\.dtype\)$"
    with pytest.raises(TypeError, match=words):
        vf.metrics.likelihood_degradation(lowered(), X, X.double())
    with pytest.raises(ValueError, match=r"^x_adv must be \[3, 1, 8, 8\] like x, got"):
        vf.metrics.likelihood_degradation(lowered(), X, X[:2])

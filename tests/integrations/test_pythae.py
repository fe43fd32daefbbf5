"""pythae's own models with random weights: our numbers are those of their losses."""

import math
import warnings

import pytest
import torch

from vaefast.models import VAE, as_vae, explain

models = pytest.importorskip("pythae.models", reason="pythae is not installed")

EVENT, D, d = (1, 4, 5), 20, 3
CONSTANT = 0.5 * D * math.log(2 * math.pi)  # which pythae's losses leave out
GAUSSIAN = [
    "VAE",
    "BetaVAE",
    "BetaTCVAE",
    "DisentangledBetaVAE",
    "FactorVAE",
    "INFOVAE_MMD",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "CIWAE",
    "RHVAE",
    "Adversarial_AE",
    "VAMP",
    "HVAE",
]


def build(name, loss="mse", **options):
    torch.manual_seed(0)
    config = getattr(models, f"{name}Config", None) or getattr(models, f"{name}_Config")
    if loss is not None:
        options["reconstruction_loss"] = loss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # HVAE warns of its logits
        model = getattr(models, name)(config(input_dim=EVENT, latent_dim=d, **options))
    return model.eval()


@pytest.fixture
def x():
    return torch.rand(6, *EVENT, generator=torch.Generator().manual_seed(1))


def moments(model, x):
    out = model.encoder(x)
    return out.embedding, out.log_covariance


@pytest.mark.parametrize("loss", ["mse", "bce"])
@pytest.mark.parametrize("name", GAUSSIAN)
def test_moments_and_pixels_are_the_models(name, loss, x):
    model = build(name, loss)
    vae = as_vae(model)
    mean, logvar = vae.encode(x)
    own_mean, own_logvar = moments(model, x)
    if name == "HVAE":
        own_logvar = 2 * torch.nn.functional.softplus(own_logvar).log()
    assert torch.equal(mean, own_mean)
    assert torch.allclose(logvar, own_logvar, atol=1e-6)
    pixels = model.decoder(mean)["reconstruction"]
    if name == "HVAE" and loss == "bce":
        pixels = torch.sigmoid(pixels)  # its loss takes the decoder's output for logits
    assert torch.allclose(vae.g(mean), pixels, atol=1e-6)
    assert (vae.likelihood, vae.latent_shape) == (
        {"mse": "gaussian", "bce": "bernoulli"}[loss],
        (d,),
    )


@torch.no_grad()
@pytest.mark.parametrize("loss", ["mse", "bce"])
@pytest.mark.parametrize("name", ["VAE", "VAMP"])
def test_the_elbo_is_minus_the_models_loss(name, loss, x):
    """At the same z: the reconstruction term less its constant, and the KL term."""
    model = build(name, loss)
    vae = as_vae(model)
    q = vae.q(x)
    z = q.sample(torch.randn(len(x), d))
    arguments = model.decoder(z)["reconstruction"], x, q.mean, q.logvar, z
    arguments = (*arguments, 1) if name == "VAMP" else arguments
    total, reconstruction, kl = (float(v) for v in model.loss_function(*arguments))
    ours = -vae.log_likelihood(x, z).mean() - (CONSTANT if loss == "mse" else 0.0)
    assert float(ours) == pytest.approx(reconstruction, rel=1e-5)
    if name == "VAE":
        divergence = q.kl()
    else:  # the constants of log q and log p cancel
        divergence = q.log_prob(z) - vae.log_prior(z)
    assert float(divergence.mean()) == pytest.approx(kl, rel=1e-5, abs=1e-5)
    assert float(ours + divergence.mean()) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_the_likelihood_of_an_hvae_is_its_own(loss, x):
    model, x = build("HVAE", loss), x.round()  # its Bernoulli takes binary pixels only
    vae, z = as_vae(model), torch.randn(len(x), d)
    own = model._log_p_x_given_z(model.decoder(z)["reconstruction"], x)
    constant = CONSTANT if loss == "mse" else 0.0
    assert torch.allclose(vae.log_likelihood(x, z) + constant, own.double(), rtol=1e-5)


def test_the_prior_of_a_vamp_is_a_density():
    """It integrates to 1, which pythae's own, without its constant, does not."""
    torch.manual_seed(0)
    config = models.VAMPConfig(input_dim=(4,), latent_dim=1, number_components=5)
    vae = as_vae(models.VAMP(config).eval())
    z = torch.linspace(-30, 30, 20001)[:, None]
    with torch.no_grad():
        total = torch.trapezoid(vae.log_prior(z).exp(), z[:, 0].double())
    assert float(total) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("AE", r"AE has no Gaussian posterior: its encoder gives a point and no σ; choose one"),
        ("WAE_MMD", "gives a point and no σ"),
        ("RAE_L2", "gives a point and no σ"),
        ("RAE_GP", "gives a point and no σ"),
        ("VQVAE", "codes of a codebook"),
        ("SVAE", "von Mises-Fisher"),
        ("PoincareVAE", "hyperbolic"),
        ("VAE_IAF", "through a flow"),
        ("VAE_LinNF", "through a flow"),
    ],
)
def test_models_without_a_gaussian_posterior_are_refused(name, words):
    options = {"flows": ["Planar"]} if name == "VAE_LinNF" else {}
    loss = "mse" if name in ("SVAE", "PoincareVAE", "VAE_IAF", "VAE_LinNF") else None
    with pytest.raises(TypeError, match=words):
        as_vae(build(name, loss, **options))


def test_a_deterministic_adversarial_autoencoder_has_no_posterior():
    with pytest.raises(TypeError, match="deterministic_posterior is on"):
        as_vae(build("Adversarial_AE", deterministic_posterior=True))


def test_the_way_out_that_an_autoencoder_is_told_works(x):
    """σ chosen; its loss is the sum of squares without a half: obs_std √½."""
    model, sigma = build("AE", None), 0.1
    vae = VAE(
        encoder_mean=model.encoder,
        encoder_logvar=torch.full((d,), 2 * math.log(sigma)),
        decoder=model.decoder,
        likelihood="gaussian",
        obs_std=0.5**0.5,
        decoder_output="mean",
    )
    mean, std = vae.posterior(x)
    assert torch.equal(mean, model.encoder(x).embedding)
    assert torch.allclose(std, torch.tensor(sigma))
    own = model.loss_function(model.decoder(mean)["reconstruction"], x)
    constant = D * (0.5 * math.log(2 * math.pi) + math.log(0.5**0.5))
    assert float(-vae.log_likelihood(x, mean).mean() - constant) == pytest.approx(float(own), 1e-5)


@pytest.mark.parametrize("name", ["VAEGAN", "MSSSIM_VAE"])
def test_losses_that_are_no_likelihood_want_one_named(name, x):
    with pytest.raises(ValueError, match=f"likelihood must be named for pythae's {name}"):
        as_vae(build(name))
    vae = as_vae(build(name), likelihood="gaussian", obs_std=0.3)
    assert vae.obs_std == 0.3
    assert vae.reconstruct(x).shape == x.shape


def test_what_is_given_comes_before_the_config(x):
    vae = as_vae(build("VAE"), obs_std=0.2)
    assert (vae.likelihood, vae.obs_std) == ("gaussian", 0.2)
    vae = as_vae(
        build("VAE", "bce"), likelihood="continuous_bernoulli", decoder_output="probabilities"
    )
    assert vae.likelihood == "continuous_bernoulli"
    assert torch.isfinite(vae.log_likelihood(x, vae.encode(x)[0])).all()


def test_a_vamps_mixture_is_its_prior_in_closed_form(x):
    """Read once for a call of the sampler, which runs its decoder's likelihood in the fused ops."""
    vae = as_vae(build("VAMP", "bce"))
    mixture = vae.prior.mixture()
    z = 2.0 * torch.randn(30, d, generator=torch.Generator().manual_seed(2))
    value, gradient = mixture.log_prob_and_gradient(z)
    z.requires_grad_()
    own = vae.log_prior(z)
    (slope,) = torch.autograd.grad(own.sum(), z)
    assert torch.allclose(value, own.detach(), rtol=1e-5, atol=1e-5)
    assert torch.allclose(gradient, slope, rtol=1e-4, atol=1e-4)
    assert "a closed form gives its gradient" in str(explain(vae, x))

"""Modules in the styles of many authors: what they return is read, not what they are called."""

import math
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributions import (
    Bernoulli,
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    Normal,
)

import vaefast as vf
from vaefast.models import VAE, as_vae

D, d = 12, 3
FORMS = {
    "tuple": lambda m, v: (m, v),
    "list": lambda m, v: [m, v],
    "z first": lambda m, v: (m + 1, m, v),
    "mean and logvar": lambda m, v: {"mean": m, "logvar": v},
    "mu and log_var": lambda m, v: {"mu": m, "log_var": v},
    "loc and scale": lambda m, v: {"loc": m, "scale": (v / 2).exp()},
    "mean and var": lambda m, v: {"mean": m, "var": v.exp()},
    "mean and log_std": lambda m, v: {"mean": m, "log_std": v / 2},
    "ordered": lambda m, v: OrderedDict(embedding=m, log_covariance=v),
    "attributes": lambda m, v: SimpleNamespace(embedding=m, log_covariance=v),
    "latent_dist": lambda m, v: SimpleNamespace(latent_dist=SimpleNamespace(mean=m, logvar=v)),
    "tuple of one": lambda m, v: (SimpleNamespace(mean=m, logvar=v),),
    "normal": lambda m, v: Normal(m, (v / 2).exp()),
    "independent": lambda m, v: Independent(Normal(m, (v / 2).exp()), 1),
}


class Model(nn.Module):
    """Encodes and decodes as told."""

    def __init__(self, form=FORMS["tuple"], image=lambda out: out):
        super().__init__()
        torch.manual_seed(0)
        self.mu, self.scale, self.out = nn.Linear(D, d), nn.Linear(D, d), nn.Linear(d, D)
        self.form, self.image = form, image

    def encode(self, x):
        return self.form(self.mu(x), self.scale(x))

    def decode(self, z):
        return self.image(self.out(z))


@pytest.fixture
def x():
    return torch.rand(5, D, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("form", FORMS)
def test_encode_may_return_its_moments_in_any_form(form, x):
    model = Model(FORMS[form])
    mean, logvar = as_vae(model).encode(x)
    assert torch.equal(mean, model.mu(x))
    assert torch.allclose(logvar, model.scale(x), atol=1e-6)


@pytest.mark.parametrize(
    ("output", "scale"),
    [
        ("logvar", lambda v: v),
        ("std", lambda v: (v / 2).exp()),
        ("var", lambda v: v.exp()),
        ("logstd", lambda v: v / 2),
    ],
)
@pytest.mark.parametrize("name", [None, "logvar"])
def test_encoder_output_says_what_the_scale_is(output, scale, name, x):
    """It comes before what a name says, for names may lie."""
    form = (lambda m, v: {"mean": m, name: scale(v)}) if name else lambda m, v: (m, scale(v))
    model = Model(form)
    logvar = as_vae(model, encoder_output=output).encode(x)[1]
    assert torch.allclose(logvar, model.scale(x), atol=1e-6)


@pytest.mark.parametrize(
    "image",
    [
        lambda out: (out, out.sum()),
        lambda out: [out],
        lambda out: {"reconstruction": out, "other": 0},
        lambda out: SimpleNamespace(reconstruction=out),
        lambda out: SimpleNamespace(sample=out),
        lambda out: {"logits": out},
        lambda out: Independent(Bernoulli(logits=out), 1),
    ],
)
def test_decode_may_return_its_image_in_any_form(image, x):
    model = Model(image=image)
    vae = as_vae(model)
    z = vae.encode(x)[0]
    assert torch.allclose(vae.decode(z), model.out(z), atol=1e-6)


@pytest.mark.parametrize(
    ("q", "name"),
    [
        (lambda m, v: Laplace(m, v.exp()), "Laplace"),
        (
            lambda m, v: LowRankMultivariateNormal(m, m[..., None], v.exp()),
            "LowRankMultivariateNormal",
        ),
    ],
)
def test_other_posteriors_are_refused(q, name, x):
    with pytest.raises(TypeError, match=f"diagonal Gaussian .*, got {name}"):
        as_vae(Model(q)).encode(x)


def test_unknown_results_are_refused_with_what_came(x):
    with pytest.raises(TypeError, match=r"got dict with a, b"):
        as_vae(Model(lambda m, v: {"a": m, "b": v})).encode(x)
    with pytest.raises(ValueError, match="encoder_output must be one of 'logvar', 'std'"):
        as_vae(Model(), encoder_output="sigma")


class Halves(nn.Module):
    """.encoder and .decoder in the style of a benchmark of disentanglement: interleaved heads."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Interleaved(), nn.Sequential(nn.Linear(d, D), nn.Sigmoid())


class Interleaved(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.Linear(D, 2 * d)

    def forward(self, x):
        return self.heads(x).view(-1, d, 2).unbind(-1)


def test_modules_with_an_encoder_and_a_decoder(x):
    model = Halves()
    vae = as_vae(model, decoder_output="probabilities")
    mean, logvar = vae.encode(x)
    assert torch.equal(mean, model.encoder.heads(x)[:, 0::2])
    assert torch.equal(logvar, model.encoder.heads(x)[:, 1::2])
    assert torch.equal(vae.decode(mean), model.decoder[0](mean))  # the Sigmoid is left out
    assert torch.allclose(vae.g(mean), model.decoder(mean), atol=1e-6)


class Scaled(nn.Module):
    """The tutorial of a probabilistic language: the encoder gives (loc, scale)."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = self.Encoder(), self.Decoder()

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc, self.log_scale = nn.Linear(D, d), nn.Linear(D, d)

        def forward(self, x):
            return self.loc(x), self.log_scale(x).exp()

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(d, D)

        def forward(self, z):
            return (torch.sigmoid(self.out(z)) + 1e-7) * (1 - 2e-7)


def test_a_scale_that_is_a_standard_deviation(x):
    model = Scaled()
    vae = as_vae(model, encoder_output="std", decoder_output="probabilities")
    mean, std = vae.posterior(x)
    assert torch.allclose(std, model.encoder(x)[1], rtol=1e-5)
    assert torch.allclose(vae.g(mean), model.decoder(mean), atol=1e-6)


class Heads(nn.Module):
    """A trunk with fc_mu and fc_var, and no method that joins them."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Sequential(nn.Linear(D, 7), nn.ReLU()), nn.Linear(d, D)
        self.fc_mu, self.fc_var = nn.Linear(7, d), nn.Linear(7, d)


class Inner(nn.Module):
    """The networks one level down, a std head or one number for it."""

    def __init__(self, gamma=None):
        super().__init__()
        self.model = nn.Module()
        self.model.encoder_mean, self.model.decoder = nn.Linear(D, d), nn.Linear(d, D)
        self.model.gamma = gamma
        if gamma is None:
            self.model.encoder_std_dev = nn.Sequential(nn.Linear(D, d), nn.Softplus())


def test_heads_that_are_children_of_the_module(x):
    model = Heads()
    mean, logvar = as_vae(model).encode(x)
    assert torch.equal(mean, model.fc_mu(model.encoder(x)))
    assert torch.equal(logvar, model.fc_var(model.encoder(x)))
    model = Inner()
    mean, std = as_vae(model).posterior(x)
    assert torch.equal(mean, model.model.encoder_mean(x))
    assert torch.allclose(std, model.model.encoder_std_dev(x), rtol=1e-5)
    assert torch.allclose(as_vae(Inner(0.25)).posterior(x)[1], torch.tensor(0.25))


class Squeezed(nn.Module):
    """A convolutional encoder that ends in ``.squeeze()``, which loses the batch of one row."""

    def __init__(self):
        super().__init__()
        self.c, self.l, self.out = nn.Conv2d(1, 5, 4), nn.Conv2d(1, 5, 4), nn.Linear(5, 16)

    def encode(self, x):
        return self.c(x).squeeze(), self.l(x).squeeze()

    def decode(self, z):
        return self.out(z).view(-1, 1, 4, 4).squeeze()


def test_a_lone_row_of_an_encoder_that_squeezes():
    vae, x = as_vae(Squeezed(), likelihood="gaussian"), torch.rand(3, 1, 4, 4)
    mean, _ = vae.encode(x)
    assert torch.allclose(vae.encode(x[:1])[0], mean[:1], atol=1e-6)
    assert vae.reconstruct(x[:1]).shape == (1, 1, 4, 4)
    assert torch.isfinite(vf.attacks.latent(vae, x, eps=0.1, steps=2).objective).all()
    assert not vf.hmc.sample(vae, x, steps=2, warmup=2).failed.any()


class OnlyForward(nn.Module):
    def forward(self, x):
        return x, x, x


def test_a_module_with_forward_alone_is_told_what_to_pass():
    with pytest.raises(TypeError, match=r"OnlyForward lacks encode and decode, and forward\(x\)"):
        as_vae(OnlyForward())


def test_named_results_of_the_parts_of_a_vae(x):
    """Parts of a library's model go into VAE( ) as they are."""
    head = Model()
    head.forward = lambda x: SimpleNamespace(embedding=head.mu(x))
    decoder = Model(image=lambda out: {"reconstruction": out})
    decoder.forward = decoder.decode
    vae = VAE(encoder_mean=head, encoder_logvar=torch.zeros(d), decoder=decoder)
    assert torch.equal(vae.encode(x)[0], head.mu(x))
    assert torch.equal(vae.reconstruct(x), torch.sigmoid(decoder.out(head.mu(x))))


class Latents(nn.Module):
    """Latents [2, 3, 3] of images [1, 6, 6]."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 4, 2, stride=2), nn.ConvTranspose2d(2, 1, 2, stride=2)

    def encode(self, x):
        return self.down(x).chunk(2, dim=1)

    def decode(self, z):
        assert z.shape[1:] == (2, 3, 3)
        return self.up(z)


def test_latents_of_any_shape_travel_flat():
    module, x = Latents(), torch.rand(5, 1, 6, 6)
    vae = as_vae(module)
    assert vae.latent_shape is None
    mean, logvar = vae.encode(x)
    assert (vae.latent_shape, vae.latent_dim) == ((2, 3, 3), 18)
    assert mean.shape == logvar.shape == (5, 18)
    own = module.encode(x)[0]
    assert torch.equal(vae.unflat(mean), own)
    assert torch.equal(vae.flat(own), mean)
    assert torch.equal(vae.decode(mean), module.decode(own))
    assert torch.equal(vae.decode(own), module.decode(own))
    assert torch.equal(vae.log_prior(own), vae.log_prior(mean))
    assert vae.unflat(torch.zeros(2, 4, 7, 18)).shape == (2, 4, 7, 2, 3, 3)
    assert vae.flat(torch.zeros(2, 4, 7, 2, 3, 3)).shape == (2, 4, 7, 18)
    with pytest.raises(ValueError, match=r"z must be \[n, 18\] or \[n, 2, 3, 3\], got \[1, 17\]"):
        vae.decode(torch.zeros(1, 17))
    with pytest.raises(ValueError, match=r"must end in d = 18 to be \[2, 3, 3\], got \[4\]"):
        vae.unflat(torch.zeros(4))
    with pytest.raises(ValueError, match=r"must end in \[18\] or \[2, 3, 3\], got \[2, 3\]"):
        vae.flat(torch.zeros(2, 3))


def test_shaped_latents_go_through_the_public_functions():
    vae, x = as_vae(Latents(), likelihood="gaussian"), torch.rand(3, 1, 6, 6)
    assert torch.isfinite(vf.geometry.frobenius_norm(vae, x)).all()
    assert torch.isfinite(vf.attacks.latent(vae, x, eps=0.1, steps=2).objective).all()
    result = vf.hmc.sample(vae, x, steps=2, warmup=2)
    assert not result.failed.any()
    assert result.z.shape == (3, 1, 2, 2, 3, 3)


def test_the_posterior_is_the_density_that_encode_describes(x):
    vae = as_vae(Model().double())
    q = vae.q(x.double())
    normal = Independent(Normal(q.mean, q.std), 1)
    z = q.sample(torch.randn(5, d, dtype=torch.float64))
    assert torch.allclose(q.log_prob(z), normal.log_prob(z))
    standard = Independent(Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean)), 1)
    assert torch.allclose(q.kl(), torch.distributions.kl_divergence(normal, standard))
    assert torch.equal(q.unflat(q.flat(z)), z)
    assert math.prod(q.latent_shape) == d

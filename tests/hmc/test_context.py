"""Conditional models, latents that are no vectors, decoders with a second head."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from vaefast.hmc import defend, sample, tune
from vaefast.models import VAE, as_vae
from vaefast.runtime import capture
from vaefast.runtime.capture import Graphs

SHORT = {"chains": 2, "steps": 12, "warmup": 6, "leapfrog": 3, "seed": 5}
CLOSE = {"rtol": 1e-6, "atol": 1e-8}
D, d = 6, 2


class Conditional(VAE):
    """decode(z, c) = decode(z) + c, encode(x, c) = encode(x − c), log p(z|c) = log p(z) + 1."""

    def encode(self, x, context=None):
        return super().encode(x if context is None else x - _tensor(context))

    def posterior(self, x, context=None):
        mean, logvar = self.encode(x, context)
        return mean, torch.exp(0.5 * logvar)

    def decode(self, z, context=None):
        out = super().decode(z)
        return out if context is None else out + _tensor(context)

    def g(self, z, context=None):
        return self.decode(z, context)

    def log_prior(self, z, context=None):
        return super().log_prior(z) + (0.0 if context is None else 1.0)


def _tensor(context):
    return context["mean"] if isinstance(context, dict) else context


@pytest.fixture
def vae():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        decoder = nn.Sequential(nn.Linear(d, 8), nn.Tanh(), nn.Linear(8, D))
        encoder = nn.Linear(D, d)
    return Conditional(
        encoder_mean=encoder,
        encoder_logvar=torch.full((d,), -1.0),
        decoder=decoder,
        likelihood="gaussian",
        obs_std=0.5,
    ).double()


def inputs(rows):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, rows, D, generator=generator, dtype=torch.float64)


class Capturer:
    """Replays by running again."""

    def rehearse(self, run):
        return run()

    def capture(self, run):
        outputs = run()

        def replay():
            for held, new in zip(outputs, run()):
                held.copy_(new)

        return replay, outputs

    def new_pool(self):
        pass


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("mass", [None, "posterior"])
def test_every_row_and_chain_has_its_own_condition(vae, named, captured, mass, monkeypatch):
    """A shift of the mean is a shift of the image; more rows than fit into one batch of 64."""
    x, c = inputs(40)
    expected = sample(vae, x - c, mass=mass, context=torch.zeros_like(c), **SHORT)
    if captured:
        held = Graphs(Capturer(), [vae])
        monkeypatch.setattr(capture, "capturing", lambda *given: nullcontext(held))
    found = sample(vae, x, mass=mass, context={"mean": c} if named else c, **SHORT)
    torch.testing.assert_close(found.z, expected.z, **CLOSE)
    torch.testing.assert_close(found.energy, expected.energy, **CLOSE)
    if captured:
        assert held.replayed > 0


def test_a_condition_goes_with_its_row(vae):
    x, c = inputs(5)
    whole = sample(vae, x, context=c, **SHORT)
    index = torch.tensor([3, 1])
    some = sample(vae, x[index], context=c[index], index=index, **SHORT)
    torch.testing.assert_close(some.z, whole.z[index], **CLOSE)


def test_the_prior_is_given_the_condition(vae):
    x, c = inputs(3)
    found = sample(vae, x, context=c, **SHORT)
    plain = sample(vae, x - c, **SHORT)  # whose prior has no condition
    torch.testing.assert_close(found.energy, plain.energy - 1.0, **CLOSE)


def test_the_schedule_cuts_conditions_with_its_groups(vae, budget):
    x, c = inputs(24)
    options = {"schedule": "kuzina2022", "steps": 6, "group": torch.arange(24) % 4, "seed": 1}
    whole = sample(vae, x, context=c, **options)
    budget(60_000)
    torch.testing.assert_close(sample(vae, x, context=c, **options).z, whole.z, **CLOSE)


def test_defend_and_tune_take_conditions(vae):
    x, c = inputs(3)
    found = defend(vae, x, context=c, **SHORT)
    mean = vae.decode(found.z.flatten(0, 1)).view(3, 2, D) + c[:, None]
    torch.testing.assert_close(found.reconstruction, mean.detach(), **CLOSE)
    quick = {"leapfrogs": (2, 4), "warmup": 10, "steps": 10, "seed": 1}
    expected = tune(vae, x - c, context=torch.zeros_like(c), **quick)
    assert tune(vae, x, context=c, **quick) == pytest.approx(expected)


class Shaped(nn.Module):
    """The same model with latents [2, 1, 1]."""

    def __init__(self, vae):
        super().__init__()
        self.inner = vae

    def encode(self, x):
        mean, logvar = self.inner.encode(x)
        return mean.view(-1, 2, 1, 1), logvar.view(-1, 2, 1, 1)

    def decode(self, z):
        return self.inner.decode(z.flatten(1))


def test_latents_come_back_in_their_own_shape(vae):
    """A flat model is the same but for the shape."""
    x, _ = inputs(3)
    options = {"context": torch.zeros(3, D).double(), **SHORT}  # on the same path
    expected, decoded = sample(vae, x, **options), defend(vae, x, **options)
    shaped = as_vae(Shaped(vae), likelihood="gaussian", obs_std=0.5)
    found, defended = sample(shaped, x, **SHORT), defend(shaped, x, **SHORT)
    assert found.z.shape == (3, 2, 12, 2, 1, 1)
    torch.testing.assert_close(found.z.flatten(3), expected.z, **CLOSE)
    assert defended.z.shape == (3, 2, 2, 1, 1)
    torch.testing.assert_close(defended.reconstruction, decoded.reconstruction, **CLOSE)
    still = {**SHORT, "steps": 1, "warmup": 0, "step_size": 1e-12, "adapt": None}
    shared, own = torch.randn(3, 2, 1, 1).double(), torch.randn(3, 2, 2, 1, 1).double()
    for init, start in ((own, own), (own.flatten(2), own), (shared, shared[:, None])):
        z = sample(shaped, x, init=init, **still).z[:, :, 0]
        torch.testing.assert_close(z, start.expand(3, 2, 2, 1, 1))
    with pytest.raises(ValueError, match=r"\[3, 2, 1, 1\] or \[3, 2, 2, 1, 1\] in"):
        sample(shaped, x, init=torch.zeros(3, 3, 1, 1).double(), **still)
    quick = {"leapfrogs": (2,), "warmup": 10, "steps": 10, "seed": 1}
    assert tune(shaped, x, **quick)["leapfrog"] == 2


class TwoHeads(nn.Module):
    """The Gaussian's mean, and its log-variance z₀."""

    def __init__(self, mean):
        super().__init__()
        self.mean = mean

    def forward(self, z):
        return self.mean(z), z[:, :1].expand(-1, D)


def test_a_second_head_of_the_decoder_enters_energy_and_gradient(vae):
    model = VAE(
        encoder_mean=nn.Linear(D, d),
        encoder_logvar=torch.zeros(d),
        decoder=TwoHeads(vae.decoder),
        likelihood="gaussian",
        decoder_output="mean_logvar",
    ).double()
    x, _ = inputs(3)
    result = sample(model, x, **{**SHORT, "steps": 60})
    z = result.z[:, :, 7].flatten(0, 1)
    with torch.no_grad():
        law = torch.distributions.Normal(vae.decoder(z), torch.exp(0.5 * z[:, :1]))
        logp = law.log_prob(x.repeat_interleave(2, 0)).sum(1)
        expected = -logp - model.log_prior(z)
    torch.testing.assert_close(result.energy[:, :, 7].flatten(), expected)
    assert result.accept_rate.mean() > 0.6  # with the gradient of another U it would fall


@pytest.mark.parametrize("generic", [False, True])
def test_a_standard_deviation_per_pixel(vae, generic):
    """Scaling each pixel's decoder, image and std alike adds a constant to U."""
    scale = torch.linspace(0.5, 2.0, D).double()
    first, tanh, last = vae.decoder
    scaled = nn.Linear(8, D).double()
    with torch.no_grad():
        scaled.weight.copy_(scale[:, None] * last.weight)
        scaled.bias.copy_(scale * last.bias)
    decoders = [nn.Sequential(first, tanh, last), nn.Sequential(first, tanh, scaled)]
    if generic:
        decoders = [Opaque(decoder) for decoder in decoders]
    plain, wide = (
        VAE(
            encoder_mean=nn.Linear(D, d),
            encoder_logvar=torch.zeros(d),
            decoder=decoder,
            likelihood="gaussian",
            obs_std=std,
        ).double()
        for decoder, std in zip(decoders, (0.5, 0.5 * scale))
    )
    x, _ = inputs(3)
    init = torch.zeros(3, d).double()
    expected = sample(plain, x, init=init, **SHORT)
    found = sample(wide, x * scale, init=init, **SHORT)
    torch.testing.assert_close(found.z, expected.z, **CLOSE)
    torch.testing.assert_close(found.energy - scale.log().sum(), expected.energy, **CLOSE)


class Opaque(nn.Module):
    """A module that is not recognised as a network."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, z):
        return self.module(z.unsqueeze(-1).cummax(-1).values.squeeze(-1))


def test_rows_with_path_lengths_of_their_own_keep_their_context(vae):
    """Rows of one L run together, each with its own conditions."""
    x, shift = inputs(3)
    step = torch.tensor([0.5, 0.1, 0.5]).double()
    how = {"leapfrog": "quarter", "mass": "posterior", "chains": 2, "steps": 4, "warmup": 6}
    whole = sample(vae, x, context=shift, step_size=step, **how)
    assert whole.leapfrog.unique().numel() > 1
    for row in range(3):
        of = slice(row, row + 1)
        own = {"context": shift[of], "step_size": step[of], "index": torch.tensor([row])}
        alone = sample(vae, x[of], **own, **how)
        torch.testing.assert_close(whole.z[of], alone.z, **CLOSE)

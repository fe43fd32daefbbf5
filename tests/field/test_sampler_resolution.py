"""A sampler in float32 reported healthy acceptance while its chains stood still.

The energy of an input out of the decoder's reach is large beside 1 nat, its rounding errors decide
what is accepted, and the step adapts to them. Such rows are flagged, one line says so, and float64
is one argument away; rows that float32 resolves are never flagged.
"""

import math
import warnings

import pytest
import torch
from torch import nn

from vaefast.hmc import defend, sample, tune
from vaefast.models import MLPVAE, VAE, ConvVAE

D, LATENTS = 784, 4
QUICK = {"chains": 4, "steps": 60, "warmup": 150}


def affine(obs_std, dtype=torch.float32, opaque=False):
    """A linear decoder, x that it cannot reach, and draws from the exact posterior to start at."""
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(D, LATENTS, generator=g, dtype=torch.float64) / math.sqrt(LATENTS)
    decoder = nn.Linear(LATENTS, D, bias=False, dtype=dtype)
    decoder.weight.data = weight.to(dtype)
    vae = VAE(
        encoder_mean=nn.Sequential(nn.Flatten(), nn.Linear(D, LATENTS, dtype=dtype)),
        encoder_logvar=torch.full((LATENTS,), -4.0, dtype=dtype),
        decoder=nn.Sequential(Sorted(), decoder) if opaque else decoder,
        likelihood="gaussian",
        obs_std=obs_std,
    )
    x = torch.rand(2, D, generator=g, dtype=torch.float64)
    covariance = torch.linalg.inv(torch.eye(LATENTS) + weight.T @ weight / obs_std**2)
    sd = covariance.diagonal().sqrt()
    mean = x @ weight @ covariance / obs_std**2
    noise = torch.randn(2, 4, LATENTS, generator=g, dtype=torch.float64)
    init = (mean[:, None] + sd * noise).to(dtype)
    return vae.eval(), x.to(dtype), init, sd


class Sorted(nn.Module):
    """The identity, as no network is."""

    def forward(self, z):
        return z.unsqueeze(-1).cummax(-1).values.squeeze(-1)


def silent(call):
    """The result of a call that warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call()


@pytest.mark.parametrize(("obs_std", "opaque"), [(1e-3, False), (1e-4, False), (1e-4, True)])
def test_what_float32_does_not_resolve_is_flagged(obs_std, opaque):
    vae, x, init, sd = affine(obs_std, opaque=opaque)
    given = {**QUICK, "warmup": 40, "steps": 10} if opaque else QUICK
    with pytest.warns(UserWarning, match="use float64") as caught:
        result = sample(vae, x, init=init, **given)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert caught[0].filename == __file__
    scale = 1.0 if result.mass == "dense" else sd.max()  # of a step: a dense mass rounds the target
    assert (result.step_size.double() / scale < 0.05).all()  # it only seems to move
    assert (result.accept_rate > 0.5).any()
    assert result.unresolved.all()
    assert not result.failed.any()
    assert all("float32 does not resolve" in reason for reason in result.reasons)
    assert (result.rounding > 0.1).all()


@pytest.mark.parametrize("obs_std", [1e-2, 1e-1])
def test_what_float32_resolves_is_not(obs_std):
    vae, x, init, _ = affine(obs_std)
    result = silent(lambda: sample(vae, x, init=init, **QUICK))
    assert not result.unresolved.any()
    assert result.reasons == ("", "")
    assert (result.rounding < 0.02).all()


@pytest.mark.parametrize("opaque", [False, True])
def test_float64_is_one_argument_away(opaque):
    vae, x, init, sd = affine(1e-3, opaque=opaque)
    before = vae.decoder.state_dict()
    given = {"chains": 4, "steps": 5, "warmup": 25} if opaque else {**QUICK, "steps": 200}
    result = silent(lambda: sample(vae, x, init=init, precision="float64", **given))
    assert result.z.dtype == torch.float64
    assert not result.unresolved.any()
    assert (result.step_size / sd.max() > 0.1).all()
    assert vae.decoder.state_dict().keys() == before.keys()
    assert all(p.dtype == torch.float32 for p in vae.parameters())
    copy = affine(1e-3, opaque=opaque)[0].double()
    same = sample(copy, x.double(), init=init.double(), **given)
    torch.testing.assert_close(result.z, same.z, rtol=0, atol=0)
    if not opaque:
        variance = result.z.flatten(1, 2).var(1) / sd**2
        assert ((variance - 1).abs() < 0.5).all()


def test_defend_and_tune_say_so_too():
    vae, x, init, _ = affine(1e-3)
    with pytest.warns(UserWarning, match=r"hmc\.defend: 2 of 2 inputs .*float32 does not"):
        defence = defend(vae, x, init=init, **QUICK)
    assert defence.result.unresolved.all()
    promoted = silent(lambda: defend(vae, x, init=init, precision="float64", **QUICK))
    assert promoted.z.dtype == promoted.reconstruction.dtype == torch.float64
    quick = {"leapfrogs": (4,), "warmup": 150, "steps": 20, "init": init}
    with pytest.warns(UserWarning, match=r"hmc\.tune: "):
        tune(vae, x, **quick)
    silent(lambda: tune(vae, x, precision="float64", **quick))


def test_only_the_rows_that_are_concerned():
    """The second row lies in the decoder's reach; it is the same row in any batch."""
    vae, x, init, _ = affine(1e-3)
    z = torch.full((1, LATENTS), 0.5)
    x, init = torch.cat((x[:1], vae.decode(z).detach())), torch.stack((init[0], z.expand(4, -1)))
    with pytest.warns(UserWarning, match=r"1 of 2 inputs \(row 0\)"):
        result = sample(vae, x, init=init, **QUICK)
    assert result.unresolved.tolist() == [True, False]
    assert [bool(reason) for reason in result.reasons] == [True, False]
    index = torch.tensor([1])
    alone = silent(lambda: sample(vae, x[1:], init=init[1:], index=index, **QUICK))
    torch.testing.assert_close(alone.rounding, result.rounding[1:], rtol=0, atol=0)


@pytest.mark.parametrize("step_size", [1e-9, 1e-12])
def test_steps_below_the_spacing_of_z(step_size):
    vae = MLPVAE((1, 8, 8), hidden=(16,), latent=3, seed=0).eval()
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    given = {"steps": 20, "warmup": 0, "adapt": None, "step_size": step_size}
    with pytest.warns(UserWarning, match="does not resolve the latents"):
        result = sample(vae, x, **given)
    assert result.unresolved.all()
    silent(lambda: sample(vae, x, precision="float64", **given))


MODELS = {
    "bernoulli": {},
    "clamped_bernoulli": {},
    "continuous_bernoulli": {},
    "gaussian": {"obs_std": 0.1},
}


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("likelihood", MODELS)
def test_no_false_alarm(likelihood, scale, activation):
    """Ordinary images and decoders, also steep ones and ones with kinks, with short warm-ups."""
    x = torch.rand(12, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(8, 64), activation(), nn.Linear(64, 784))
    for parameter in decoder.parameters():
        parameter.data.mul_(scale)
    vae = VAE(
        encoder_mean=nn.Sequential(nn.Flatten(), nn.Linear(784, 8)),
        encoder_logvar=torch.full((8,), -2.0),
        decoder=decoder,
        likelihood=likelihood,
        **MODELS[likelihood],
    )
    result = silent(lambda: sample(vae.eval(), x, steps=20, warmup=30))
    assert not result.unresolved.any()
    assert (result.rounding < 0.02).all()


def test_no_false_alarm_on_a_convolutional_model():
    vae = ConvVAE((1, 8, 8), channels=4, latent=4, seed=0).eval()
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    result = silent(lambda: sample(vae, x, steps=15, warmup=25, leapfrog=4))
    assert not result.unresolved.any()

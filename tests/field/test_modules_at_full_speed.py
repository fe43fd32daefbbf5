"""Whoever brought a convolutional VAE paid for a fast library and got one slower than PyTorch.

By default modules take their rows as they come, and convolutions run in channels_last: in a twin of
the module, which is compared first, leaves the caller's as it is and gives way where code in it
cannot work with such tensors. Which form runs is said by explain.
"""

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast import attacks, certify, geometry, hmc
from vaefast.models import ConvVAE
from vaefast.models.forms import Forms
from vaefast.models.prepare import prepare

ROWS = 5
SHORT = {"steps": 3, "warmup": 2, "leapfrog": 2, "chains": 2}


class Viewing(nn.Module):
    """Code that views its input as rows, which channels_last tensors do not allow."""

    def forward(self, x):
        return x.view(len(x), -1).view(x.shape)


class Strided(nn.Module):
    """Code that reads memory as if it were contiguous: another result, and no error."""

    def forward(self, x):
        return x.as_strided(x.shape, torch.empty(x.shape, device="meta").stride())


class ViewingBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad.view(len(grad), -1).view(grad.shape)


class Backward(nn.Module):
    def forward(self, x):
        return ViewingBackward.apply(x)


class Unlowered(nn.Module):
    """What no kernel takes, so that the model stays a module."""

    def forward(self, x):
        return x + 0.0 * x.cummax(-1).values


def colour(*inside):
    """3x8x8 images, convolutions of 16 channels, with something in between."""
    torch.manual_seed(0)
    down = nn.Sequential(
        Unlowered(), nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), *inside, nn.Conv2d(16, 8, 3, 2, 1)
    )
    up = nn.Sequential(
        Unlowered(), nn.Linear(4, 64), nn.Unflatten(1, (16, 2, 2)),
        nn.ConvTranspose2d(16, 16, 4, 2, 1), nn.ReLU(), *inside, nn.ConvTranspose2d(16, 3, 4, 2, 1),
    )  # fmt: skip
    return vf.VAE(
        encoder_mean=nn.Sequential(nn.Flatten(), nn.Linear(32, 4)),
        encoder_logvar=nn.Sequential(nn.Flatten(), nn.Linear(32, 4)),
        trunk=down,
        decoder=up,
        event_shape=(3, 8, 8),
    ).eval()


def images(rows=ROWS):
    return torch.rand(rows, 3, 8, 8, generator=torch.Generator().manual_seed(0))


CALLS = {
    "hmc": lambda vae, x: hmc.sample(vae, x, adapt=None, **SHORT).energy,
    "latent": lambda vae, x: attacks.latent(vae, x, eps=0.1, steps=3, restarts=2).objective,
    "max_damage": lambda vae, x: attacks.max_damage(vae, x, eps=0.5, steps=2).objective,
    "probability": lambda vae, x: certify.robust_probability(vae, x, 1e3, samples=20).p,
    "frobenius": lambda vae, x: geometry.frobenius_norm(vae, x),
    "decoder": lambda vae, x: geometry.frobenius_norm(vae, x, of="decoder"),
    "reconstruction": lambda vae, x: geometry.spectral_norm(vae, x, of="reconstruction"),
    "spectral": lambda vae, x: geometry.spectral_norm(vae, x),
    "lower": lambda vae, x: geometry.spectral_norm(vae, x, bound="lower"),
    "jacobian": lambda vae, x: geometry.jacobian(vae, x),
}


@pytest.mark.parametrize("call", CALLS)
def test_every_function_gives_what_contiguous_modules_give(call):
    """Inside same_bits modules are contiguous."""
    vae, x = colour(), images()
    found = CALLS[call](vae, x)
    with vf.same_bits(1):
        expected = CALLS[call](vae, x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def forms(vae, x):
    return prepare(vae, x).maps.forms


def test_both_parts_run_in_channels_last_and_explain_says_so():
    vae = colour()
    found = forms(vae, images())
    assert found.described("encoder") == found.described("decoder") == "eager, channels_last"
    assert "encoder eager, channels_last; decoder eager, channels_last" in str(vf.explain(vae))
    with vf.same_bits():
        assert "eager, contiguous: one shape on one thread" in vf.explain(vae).modules


@pytest.mark.parametrize("inside", [Viewing, Strided, Backward])
def test_code_that_needs_contiguous_tensors_gets_them(inside):
    vae, x = colour(inside()), images()
    for part in ("encoder", "decoder"):
        assert forms(vae, x).described(part).startswith("eager, contiguous: ")
    found, expected = CALLS["latent"](vae, x), CALLS["latent"](colour(), x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_code_that_fails_later_runs_as_it_is():
    """A condition that two rows do not meet: the module itself runs, from then on."""

    class Later(nn.Module):
        def forward(self, x):
            return x.view(len(x), -1).view(x.shape) if len(x) > 2 else x

    vae, x = colour(Later()), images()
    assert forms(vae, x).described("encoder") == "eager, channels_last"
    assert CALLS["probability"](vae, x).tolist() == [1.0] * ROWS
    found, expected = CALLS["latent"](vae, x), CALLS["latent"](colour(), x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    for part in ("encoder", "decoder"):
        assert "view" in forms(vae, x).described(part)


def test_errors_of_the_model_are_its_own():
    class Refusing(nn.Module):
        def forward(self, x):
            if len(x) > 3:
                raise ValueError("no more than three rows")
            return x

    with pytest.raises(ValueError, match="no more than three rows"):
        CALLS["probability"](colour(Refusing()), images())


def test_the_callers_module_stays_as_it_is():
    vae, seen = colour(), []
    layer = vae.decoder[3]
    layer.register_forward_hook(lambda m, given, out: seen.append((m is layer, m.weight.stride())))
    before = {name: (t.data_ptr(), t.stride()) for name, t in vae.named_parameters()}
    CALLS["hmc"](vae, images())
    assert before == {name: (t.data_ptr(), t.stride()) for name, t in vae.named_parameters()}
    assert all(p.requires_grad and p.grad is None for p in vae.parameters())
    assert any(not own for own, _ in seen)  # the twin keeps the caller's hooks
    assert vae.decoder[3] is layer


def test_weights_are_those_of_the_moment():
    vae, x = colour(), images()
    CALLS["frobenius"](vae, x)
    for parameter in vae.parameters():
        parameter.data.mul_(0.5)
    with vf.same_bits(1):
        expected = CALLS["frobenius"](vae, x)
    torch.testing.assert_close(CALLS["frobenius"](vae, x), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("final", [nn.Sigmoid, lambda: Squash()])
def test_probabilities_lose_their_sigmoid_in_a_twin_too(final):
    vae, x = colour(), images()
    both = {"encoder_mean": vae.encoder.mean, "encoder_logvar": vae.encoder.logvar}
    decoder = nn.Sequential(vae.decoder, final())
    other = vf.VAE(
        **both, trunk=vae.encoder.trunk, decoder=decoder, decoder_output="probabilities"
    ).eval()
    assert forms(other, x).described("decoder") == "eager, channels_last"
    torch.testing.assert_close(CALLS["hmc"](other, x), CALLS["hmc"](vae, x), rtol=1e-4, atol=1e-3)


class Squash(nn.Module):
    def forward(self, x):
        return torch.sigmoid(x)


def test_small_and_float64_convolutions_stay_contiguous():
    small = ConvVAE((1, 8, 8), channels=2, latent=2).eval()
    x = images()[:, :1]
    assert "no 2-D convolution" in Forms(small, prepare(small, x).maps._call.example).described(
        "encoder"
    )
    double = colour().double()
    assert forms(double, images().double()).described("decoder").startswith("eager, contiguous")


def test_compile_is_asked_for_by_name():
    with pytest.raises(ValueError, match="way must be one of 'eager', 'compile', got 'jit'"):
        vf.set_generic("jit")


def test_what_does_not_compile_is_said_in_one_line(monkeypatch):
    def refuse(*args, **options):
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(torch, "compile", refuse)
    vf.set_generic("compile")
    with pytest.raises(RuntimeError, match=r"torch.compile of the encoder failed: no compiler; .*"):
        CALLS["latent"](colour(), images())


def test_compiled_modules_give_the_same(monkeypatch):
    """With a compiler that does nothing; the field has the real one."""
    compiled = []

    def compile_(module, **options):
        compiled.append(module)
        return module

    monkeypatch.setattr(torch, "compile", compile_)
    vae, x = colour(), images()
    expected = CALLS["hmc"](vae, x)
    vf.set_generic("compile")
    found = CALLS["hmc"](vae, x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert "decoder torch.compile" in vf.explain(vae).modules
    CALLS["hmc"](vae, x)
    assert len(compiled) == 2  # encoder and decoder, once each
    for parameter in vae.parameters():
        parameter.data.mul_(0.5)
    found = CALLS["probability"](vae, x)
    vf.set_generic("eager")
    torch.testing.assert_close(found, CALLS["probability"](vae, x), rtol=1e-3, atol=1e-3)

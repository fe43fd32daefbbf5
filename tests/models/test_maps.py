"""The maps of a VAE: lowered or as modules, half precision, contexts, and the rows of a call."""

import pytest
import torch
from torch import nn
from unlowered import unlowered

import vaefast as vf
from vaefast.models import MLPVAE, VAE
from vaefast.models.prepare import prepare


@pytest.fixture
def x():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def lowered():
    return MLPVAE((1, 8, 8), hidden=(12,), latent=3).eval()


@pytest.fixture
def convolutional():
    return unlowered((1, 8, 8), channels=3, latent=3, seed=3)


class Conditional(vf.VAE):
    """A VAE whose encoder and decoder see a condition [n, 2] beside their input."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(
            encoder_mean=nn.Linear(66, 3), encoder_logvar=nn.Linear(66, 3), decoder=nn.Linear(5, 64)
        )

    def encode(self, x, context=None):
        condition = context["a"] if isinstance(context, dict) else context
        return super().encode(torch.cat([x.flatten(1), condition], dim=1))

    def decode(self, z, context=None):
        condition = context["a"] if isinstance(context, dict) else context
        return self.decoder(torch.cat([z, condition], dim=1)).view(-1, 1, 8, 8)

    def g(self, z, context=None):
        return torch.sigmoid(self.decode(z, context))

    def posterior(self, x, context=None):
        mean, logvar = self.encode(x, context)
        return mean, torch.exp(0.5 * logvar)


def test_a_lowered_model_goes_through_net_forward(lowered, x, require):
    require("net_forward", "cpp")
    maps = prepare(lowered, x).maps
    assert not maps.generic("encoder", "decoder", "pixels", "std")
    (heads,) = maps.heads
    assert heads.outputs == 6  # both heads in one pass
    for found, expected in zip(maps.encode(x), lowered.encode(x)):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(maps.reconstruct(x), lowered.reconstruct(x))
    torch.testing.assert_close(
        maps.reconstruction.value(x.flatten(1)), lowered.g(maps.encode(x)[0]).flatten(1)
    )
    torch.testing.assert_close(maps.std.value(x.flatten(1)), lowered.posterior(x)[1])
    point = x.clone().requires_grad_()
    mean, logvar = maps.encode(point)
    (found,) = torch.autograd.grad((mean * logvar).sum(), point)
    mean, logvar = lowered.encode(point)
    torch.testing.assert_close(found, torch.autograd.grad((mean * logvar).sum(), point)[0])


def test_a_module_is_called_as_it_is(convolutional, x):
    maps = prepare(convolutional, x).maps
    assert maps.generic("encoder")
    assert maps.generic("decoder")
    assert torch.equal(maps.reconstruct(x), convolutional.reconstruct(x))
    assert maps.mean.why_not
    assert maps.pixels.why_not
    assert maps.reconstruction.why_not


def test_values_in_half_precision_are_the_modules_and_products_float32(lowered, x):
    exact = prepare(lowered, x).maps.mean
    half = lowered.half()
    maps = prepare(half, x).maps
    assert maps.mean.lowered is None
    assert "half precision" in maps.mean.why_not
    assert torch.equal(maps.mean.value(x.flatten(1)), half.encode(x)[0])
    gram = maps.mean.gram(x.flatten(1))
    torch.testing.assert_close(gram, exact.gram(x.flatten(1)), rtol=1e-2, atol=1e-4)
    unrounded = (gram - gram.half().double()).abs() > 0
    assert unrounded.any()


def test_a_convolution_in_half_precision_is_a_module_throughout(convolutional, x):
    gram = vf.geometry.pullback_spectrum(convolutional.half(), x).eigenvalues
    assert torch.isfinite(gram).all()


@pytest.mark.parametrize("wrapped", [lambda t: t, lambda t: {"a": t}])
def test_the_context_follows_its_rows(x, wrapped):
    vae, condition = Conditional().eval(), torch.randn(5, 2)
    prepared = prepare(vae, x, torch.tensor([9, 1, 64, 3, 3]), context=wrapped(condition))
    assert "context" in prepared.maps.mean.why_not

    def run(part):
        mean, _ = part.maps.encode(part.x)
        repeated = mean.repeat_interleave(3, 0)
        return mean, part.maps.g(repeated).view(len(mean), 3, -1)

    with torch.no_grad():
        mean, images = prepared.rows(run, 1, 3)
        expected = vae.encode(x, condition)[0]
        torch.testing.assert_close(mean, expected)
        for k in range(3):
            one = vae.g(expected, condition).flatten(1)
            torch.testing.assert_close(images[:, k], one)


def test_a_context_has_the_rows_of_x(x):
    with pytest.raises(ValueError, match=r"context must be \[5, \.\.\.\], .* got \[4, 2\]"):
        prepare(Conditional().eval(), x, context=torch.zeros(4, 2))
    with pytest.raises(TypeError, match=r"context\['a'\] must be a tensor .*, got float"):
        prepare(Conditional().eval(), x, context={"a": 1.0})


def test_a_networks_without_kernels_runs_as_the_module(lowered, x, monkeypatch):
    from vaefast.models import lowering
    from vaefast.types import Network

    net = lowering.decoder(lowered)
    layers = [*net.layers[:-1], "linear +-1 maxmin"]
    monkeypatch.setattr(
        lowering, "decoder", lambda vae, z, values: Network(net.weights, net.biases, layers)
    )
    decoder = prepare(lowered, x).maps.decoder
    assert decoder.lowered is None
    assert decoder.why_not.startswith("lowers, but")
    assert "no kernel for 'linear +-1 maxmin'" in decoder.why_not


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_the_encoder_recognises_two_rows(lowered, x, rows):
    sizes = []
    lowered.encoder.register_forward_hook(lambda m, i, out: sizes.append(len(out[0])))
    prepared = prepare(lowered, x[:rows] / 0)
    assert sizes == [2]
    (mean,) = prepared.rows(lambda part: part.maps.encode(part.x)[:1], 1)
    assert mean.shape == (rows, 3)


def test_a_scale_that_ends_in_an_activation_is_fused_all_the_same():
    """exp(½ clamp(a)): a layer of the identity stands between the two."""
    torch.manual_seed(0)
    logvar = nn.Sequential(nn.Flatten(), nn.Linear(6, 3), nn.Hardtanh(-0.2, 0.1))
    mean, decoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), nn.Linear(3, 6)
    vae = VAE(encoder_mean=mean, encoder_logvar=logvar, decoder=decoder).double()
    x = torch.rand(5, 6, dtype=torch.float64)
    std = prepare(vae, x).maps.std
    assert std.lowered is not None
    torch.testing.assert_close(std.value(x), vae.posterior(x)[1].detach(), rtol=1e-14, atol=0)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda row: vae.posterior(row[None])[1][0]))(x)
    torch.testing.assert_close(std.gram(x), (jacobians @ jacobians.mT).detach())

"""Our own networks: their architecture, their initial weights, and what they refuse."""

import math

import pytest
import torch
from torch import nn

from vaefast.models import MLPVAE, ConvVAE


def layers(module, kind):
    return [layer for layer in module.modules() if isinstance(layer, kind)]


def conv(layer):
    return (layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.stride[0])


def test_the_convolutional_vae_is_that_of_the_paper_at_28():
    """mathematics.md 1.6: 28, 14, 7, 4, 2, 1 and back by 1, 5, 7, 7, 14, 28."""
    vae = ConvVAE()
    down = [conv(layer) for layer in layers(vae.encoder, nn.Conv2d)]
    assert down == [
        (1, 32, 3, 2),
        (32, 64, 3, 2),
        (64, 96, 3, 2),
        (96, 128, 3, 2),
        (128, 64, 3, 2),
        (128, 64, 3, 2),
    ]
    up = layers(vae.decoder, nn.ConvTranspose2d)
    assert [conv(layer) for layer in up] == [
        (64, 128, 3, 1),
        (128, 96, 3, 1),
        (96, 64, 3, 1),
        (64, 32, 4, 2),
        (32, 1, 4, 2),
    ]
    assert [layer.dilation[0] for layer in up] == [2, 1, 1, 1, 1]
    assert [layer.padding[0] for layer in up] == [0, 0, 1, 1, 1]
    sides, value = [], torch.zeros(1, 64)
    for layer in vae.decoder:
        value = layer(value)
        sides += [value.shape[-1]] * isinstance(layer, nn.ConvTranspose2d)
    assert sides == [5, 7, 7, 14, 28]
    assert not isinstance(vae.decoder[-1], nn.ReLU | nn.Sigmoid)  # logits


@pytest.mark.parametrize(
    "event", [(1, 8, 8), (3, 8, 8), (1, 12, 20), (1, 16, 16), (1, 28, 28), (3, 32, 32), (1, 64, 8)]
)
def test_the_convolutional_vae_fits_its_event(event):
    vae = ConvVAE(event, channels=4, latent=5)
    x = torch.rand(2, *event)
    mean, logvar = vae.encode(x)
    assert mean.shape == logvar.shape == (2, 5)
    assert vae.reconstruct(x).shape == x.shape
    assert vae.event_shape == event


@pytest.mark.parametrize("hidden", [(), (16,), (32, 16)])
def test_the_mlp_vae_mirrors_its_hidden_layers(hidden):
    vae = MLPVAE((1, 4, 5), hidden, 3)
    x = torch.rand(2, 1, 4, 5)
    widths = [layer.out_features for layer in layers(vae.decoder, nn.Linear)]
    assert widths == [*reversed(hidden), 20]
    assert vae.reconstruct(x).shape == x.shape
    assert len(layers(vae.encoder, nn.Linear)) == len(hidden) + 2


def test_weights_are_xavier_normal_and_biases_zero():
    vae = MLPVAE((28, 28), (512,), 32)
    for layer in layers(vae, nn.Linear):
        std = math.sqrt(2.0 / (layer.in_features + layer.out_features))
        assert layer.weight.std().item() == pytest.approx(std, rel=0.03)
        assert not layer.bias.any()


@pytest.mark.parametrize(
    ("kind", "sizes"), [(MLPVAE, ((9,), (8,), 2)), (ConvVAE, ((1, 8, 8), 2, 2))]
)
def test_the_seed_alone_makes_the_weights(kind, sizes):
    state = torch.get_rng_state()
    one, same, other = (kind(*sizes, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    pairs = zip(one.state_dict().values(), same.state_dict().values())
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(one.parameters()), next(other.parameters()))
    assert all(p.requires_grad for p in one.parameters())


@pytest.mark.parametrize("fixed", [0.25, [0.1, 0.5]])
def test_a_fixed_std_is_what_was_asked_for(fixed):
    vae = MLPVAE((9,), (8,), 2, fixed_std=fixed)
    assert vae.fixed_std
    std = vae.posterior(torch.rand(3, 9))[1]
    assert torch.allclose(std, torch.as_tensor(fixed).expand(3, 2))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: MLPVAE((9,), (8, 0)), ValueError, "hidden must be at least 1, got 0"),
        (lambda: MLPVAE((9,), 512), TypeError, "hidden must be a sequence"),
        (lambda: MLPVAE(()), ValueError, "event_shape must have at least one dimension"),
        (lambda: MLPVAE((9,), latent=0), ValueError, "latent must be at least 1, got 0"),
        (lambda: MLPVAE((9,), activation="swish"), ValueError, "activation must be one of"),
        (lambda: MLPVAE((9,), (7,), activation="maxmin"), ValueError, "must be even widths"),
        (lambda: MLPVAE((9,), latent=2, fixed_std=[0.1]), ValueError, "d = 2 numbers, got 1"),
        (lambda: MLPVAE((9,), fixed_std=0.0), ValueError, "fixed_std must be positive"),
        (lambda: MLPVAE((9,), fixed_std="a"), TypeError, "fixed_std must be a number"),
        (lambda: MLPVAE((9,), likelihood="normal"), ValueError, "likelihood must be one of"),
        (lambda: ConvVAE((28, 28)), ValueError, "MLPVAE takes any shape"),
        (lambda: ConvVAE((1, 30, 28)), ValueError, "multiples of 4 from 8 to 64"),
        (lambda: ConvVAE((1, 4, 4)), ValueError, "multiples of 4 from 8 to 64"),
        (lambda: ConvVAE(channels=0), ValueError, "channels must be at least 1"),
    ],
)
def test_arguments_are_checked(make, error, words):
    with pytest.raises(error, match=words):
        make()

"""Computed constants: never below the truth, close to it, and blind to nothing that is larger."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import vaefast as vf
from vaefast.functional.activations import ACTIVATIONS, PARAMETERS, parse
from vaefast.functional.network import evaluate
from vaefast.functional.slopes import largest_slope
from vaefast.models.lipschitz.constants import lipschitz_constants, network_constant
from vaefast.models.lipschitz.evaluation import with_error
from vaefast.models.lipschitz.norms import (
    _power_estimate,
    convolution_bound,
    layer_bound,
    matrix_bound,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def operator_norm(module, shape, seed=0):
    """‖module‖₂ of a linear module by its matrix, exact to round-off."""
    unit = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    rows = module(unit) - module(torch.zeros_like(unit))
    return float(torch.linalg.matrix_norm(rows.detach().flatten(1), 2))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99), st.floats(-280, 280))
def test_matrices(rows, columns, seed, exponent):
    w = normal(rows, columns, seed=seed) * 10.0 ** (exponent / 2)
    exact = float(torch.linalg.matrix_norm(w, 2))
    assert exact * (1 - 1e-13) <= matrix_bound(w) <= exact * (1 + 1e-8)


def test_special_matrices():
    assert matrix_bound(torch.zeros(3, 4)) == 0.0
    assert math.isnan(matrix_bound(torch.full((2, 2), torch.nan)))
    assert 1.0 <= matrix_bound(torch.eye(50)) <= 1.0 + 1e-8
    one = torch.outer(normal(30), normal(40, seed=1))  # rank one
    assert matrix_bound(one) == pytest.approx(float(one.norm()), rel=1e-8)
    orthogonal_start = torch.diag(torch.tensor([1.0, 3.0]))
    assert matrix_bound(orthogonal_start) == pytest.approx(3.0, rel=1e-8)


def test_a_start_that_misses_the_top_direction_does_not_matter():
    """The estimate is then far below; the factorisation finds out."""
    d = 12
    start = torch.arange(1.0, d + 1).double().cos()
    top = torch.linalg.qr(torch.stack([start, normal(d)], 1))[0][:, 1]
    gram_root = torch.eye(d).double() + 0.2 * torch.outer(top, top)
    assert _power_estimate((gram_root @ gram_root)[None]) == pytest.approx(1.0)
    assert matrix_bound(gram_root) == pytest.approx(1.2, rel=1e-8)


def test_a_changed_weight_is_seen_however_it_was_changed():
    w = normal(6, 5)
    before = matrix_bound(w)
    w.data.mul_(2.0)
    assert matrix_bound(w) == pytest.approx(2 * before)
    w.numpy()[0, 0] = 100.0
    assert matrix_bound(w) > 100.0


CONVOLUTIONS = {
    "3x3": lambda: nn.Conv2d(3, 5, 3, padding=1),
    "stride": lambda: nn.Conv2d(3, 5, 3, stride=2, padding=1),
    "wide padding": lambda: nn.Conv2d(2, 3, 3, padding=4),
    "dilation": lambda: nn.Conv2d(2, 4, 3, dilation=2, padding=2),
    "groups": lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1),
    "uneven": lambda: nn.Conv2d(2, 3, (4, 1), stride=(3, 1), padding=(1, 0)),
    "patches": lambda: nn.Conv2d(2, 6, 2, stride=2),
    "gaps": lambda: nn.Conv2d(2, 6, 2, stride=3),
    "transposed": lambda: nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1),
    "transposed, output padding": lambda: nn.ConvTranspose2d(
        4, 2, 3, stride=2, padding=1, output_padding=1
    ),
    "transposed, groups": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2, dilation=2),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_on_images_of_any_size(name):
    torch.manual_seed(3)
    conv = CONVOLUTIONS[name]().double()
    bound = convolution_bound(conv.weight, conv.stride, conv.dilation, conv.groups)
    norms = [operator_norm(conv, (conv.in_channels, n, n + 1)) for n in (4, 9, 13)]
    assert max(norms) <= bound
    assert bound <= 1.12 * norms[-1]  # what is missing are the edges of an image


def test_a_convolution_of_one_axis():
    torch.manual_seed(3)
    conv = nn.Conv1d(3, 4, 5, padding=2).double()
    bound = convolution_bound(conv.weight, conv.stride, conv.dilation, conv.groups)
    assert operator_norm(conv, (3, 200)) <= bound <= 1.02 * operator_norm(conv, (3, 200))


def test_between_the_frequencies_of_the_grid():
    """Rotations by θk have the gain of all taps at θ alone, here also right between two of them."""
    taps = 6
    for shift in torch.linspace(0, 1, 7).double():
        angle = 2 * math.pi * (3 + shift) / (16 * (taps - 1)) * torch.arange(taps).double()
        cos, sin = angle.cos(), angle.sin()
        w = torch.stack([torch.stack([cos, -sin]), torch.stack([sin, cos])])
        assert taps <= convolution_bound(w, (1,), (1,), 1) <= 1.02 * taps


LAYERS = {
    "avg_pool": (nn.AvgPool2d(2), (3, 6, 6)),
    "avg_pool, overlapping": (nn.AvgPool2d(3, stride=2, padding=1), (2, 7, 7)),
    "avg_pool, gaps": (nn.AvgPool2d(2, stride=3), (2, 8, 8)),
    "upsample": (nn.Upsample(scale_factor=2), (2, 3, 4)),
    "conv on few pixels": (nn.ConvTranspose2d(5, 3, 4), (5, 1, 1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_other_kinds(name):
    torch.manual_seed(1)
    module, shape = LAYERS[name]
    module = module.double()
    net = vf.lower(module, torch.rand(2, *shape).double())
    exact, bound = operator_norm(module, shape), layer_bound(net.layer(0), net.weights[0])
    assert exact * (1 - 1e-13) <= bound
    if name != "avg_pool, overlapping":
        assert bound <= exact * (1 + 1e-7)


NAMES = sorted(ACTIVATIONS)


@pytest.mark.parametrize("name", NAMES)
def test_no_activation_is_steeper_than_its_constant(name):
    texts = {"leaky_relu": ["leaky_relu:0.2", "leaky_relu:-1.5"], "elu": ["elu:0.7", "elu:2.5"]}
    for text in texts.get(name, ["clamp:-0.5:2" if name in PARAMETERS else name]):
        (act,) = parse([text])
        a = torch.linspace(-9, 9, 400_000).double()
        slopes = act.multiply(a, act.value(a), torch.ones_like(a)).abs()
        constant = largest_slope(text)
        if name == "exp_half":
            assert math.isinf(constant)
        else:
            assert slopes.max() <= constant * (1 + 1e-15)
            assert slopes.max() >= constant * (1 - 3e-4)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down, self.out = nn.Linear(6, 9), nn.Linear(9, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(torch.relu(x + self.down(torch.tanh(self.up(x)))))


def test_residual_sums_add():
    torch.manual_seed(0)
    net = Residual().double()
    up, down, out = (float(torch.linalg.matrix_norm(m.weight, 2)) for m in net.children())
    found = network_constant(vf.lower(net, torch.rand(2, 6).double()))
    assert found == pytest.approx(out * (1 + down * up), rel=1e-7)


MODELS = {
    "mlp": lambda: vf.models.MLPVAE((1, 8, 8), (12, 10), 3, fixed_std=0.3),
    "silu": lambda: vf.models.MLPVAE((1, 8, 8), (12,), 3, "silu", fixed_std=0.3),
    "lipschitz": lambda: vf.models.LipschitzVAE((1, 8, 8), hidden=(12,), latent=3).export(),
    "conv": lambda: _fixed(vf.models.ConvVAE((1, 8, 8), channels=3, latent=3)),
}


def _fixed(vae):
    return vf.VAE(
        encoder_mean=nn.Sequential(vae.encoder.trunk, vae.encoder.mean),
        encoder_logvar=torch.zeros(3),
        decoder=vae.decoder,
    )


@pytest.mark.parametrize("name", MODELS)
def test_no_jacobian_is_larger_than_the_constant(name):
    vae = MODELS[name]().double().eval()
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    kept = lipschitz_constants(vae, x)
    assert (vf.geometry.spectral_norm(vae, x, of="encoder") <= kept.b).all()
    assert (vf.geometry.spectral_norm(vae, x, of="decoder") <= kept.a).all()


def test_a_layer_made_larger_is_caught():
    vae = MODELS["lipschitz"]().eval()
    x = torch.rand(2, 1, 8, 8)
    before = lipschitz_constants(vae, x)
    vae.decoder[0].weight.data.mul_(1.01)
    vae.encoder.logvar[1].weight.data[0] *= 3.0
    after = lipschitz_constants(vae, x)
    assert after.a == pytest.approx(1.01 * before.a)
    assert after.c > before.c
    assert after.b == before.b


@pytest.mark.parametrize(
    ("vae", "message"),
    [
        (lambda: vf.models.MLPVAE((1, 8, 8), (12,), 3), r"σ = exp\(½·log σ²\) has no Lipschitz"),
        (
            lambda: vf.VAE(
                encoder_mean=nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 3)),
                encoder_logvar=torch.zeros(3),
                decoder=nn.Linear(3, 64),
            ),
            "the encoder's mean has no computed constant: ",
        ),
        (
            lambda: vf.VAE(
                encoder_mean=nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
                encoder_logvar=torch.zeros(3),
                decoder=nn.Sequential(nn.Linear(3, 64), nn.LayerNorm(64)),
            ),
            "the decoder has no computed constant: ",
        ),
    ],
)
def test_what_has_no_constant_is_named(vae, message):
    with pytest.raises(ValueError, match=message):
        lipschitz_constants(vae().eval(), torch.rand(2, 1, 8, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_errors_are_bounded(dtype):
    """Another order of summation differs by rounding alone, twice the bound at most."""
    torch.manual_seed(4)
    layers = [nn.Linear(20, 32), vf.models.MaxMin(), nn.Linear(32, 8), nn.Sigmoid()]
    net = vf.lower(nn.Sequential(*layers).to(dtype), torch.rand(2, 20, dtype=dtype))
    x = torch.rand(50, 20, dtype=dtype)
    value, error = with_error(x, net)
    low = evaluate(x, net).double()
    if dtype is torch.float64:
        order = torch.randperm(20)
        weights = [net.weights[0][:, order], *net.weights[1:]]
        low = evaluate(x[:, order], net._replace(weights=weights))
        assert ((low - value).abs() <= 2 * error).all()
    assert (error > 0).all()
    assert error.max() < 1e-11
    assert torch.allclose(low, value, atol=1e-5)

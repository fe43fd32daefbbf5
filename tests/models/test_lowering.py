"""Lowering: the MLP of a module gives the module's numbers, or a reason that names the layer."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import vaefast as vf
from vaefast import ops
from vaefast.functional.network import evaluate
from vaefast.models import MLPVAE, VAE, CannotLower, ConvVAE, MaxMin, as_vae, lowering
from vaefast.models.activations import activation_module
from vaefast.runtime import backends

net_forward = partial(ops.net_forward, backend="reference")
ACTIVATIONS = {
    "relu": nn.ReLU(),
    "leaky_relu:0.01": nn.LeakyReLU(),
    "leaky_relu:0.3": nn.LeakyReLU(0.3),
    "elu:1.0": nn.ELU(),
    "elu:0.5": nn.ELU(0.5),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "softplus": nn.Softplus(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "maxmin": MaxMin(),
}


def agree(module, x):
    """The lowered MLP on flattened x is the module, to 1e-6 in float64."""
    network = lowering.lower(module, x)
    out = net_forward(x.flatten(1), network)
    assert torch.allclose(out, module(x).flatten(1), rtol=1e-6, atol=1e-6)
    return network


def wide_input(*shape):
    return 8 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_itself(name):
    module = nn.Sequential(nn.Linear(6, 8), ACTIVATIONS[name], nn.Linear(8, 5)).double()
    with torch.no_grad():
        module[0].weight.mul_(5.0)  # far into the tails
    network = agree(module, wide_input(64, 6))
    assert network.activations == f"{name},identity".split(",")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_names_give_their_modules(name):
    module = activation_module(name)
    a = wide_input(32, 6)
    assert torch.equal(module(a), ACTIVATIONS[name](a))


def test_activations_without_a_number_take_the_default_and_others_are_refused():
    assert activation_module("leaky_relu").negative_slope == 0.01
    for bad in ("swish", "relu:1", "leaky_relu:x", ""):
        with pytest.raises(ValueError, match="activation must be"):
            activation_module(bad)


def test_maxmin_sorts_pairs_and_keeps_the_norm():
    a = wide_input(16, 6)
    pairs = a.unflatten(-1, (-1, 2)).sort(dim=-1, descending=True).values.flatten(-2)
    assert torch.equal(MaxMin()(a), pairs)
    assert torch.allclose(MaxMin()(a).norm(dim=1), a.norm(dim=1))
    with pytest.raises(ValueError, match="with H even"):
        MaxMin()(torch.zeros(2, 3))


def test_reshapes_dropout_and_nesting_leave_no_trace():
    module = nn.Sequential(
        nn.Flatten(),
        nn.Sequential(nn.Linear(12, 8), nn.Identity(), nn.Tanh(), nn.Dropout(0.5)),
        nn.Linear(8, 4, bias=False),
        nn.Linear(4, 6),
        nn.Unflatten(1, (2, 3)),
        nn.Sigmoid(),
    )
    network = agree(module.double().eval(), wide_input(5, 3, 4))
    assert network.activations == ["tanh", "identity", "sigmoid"]
    assert network.biases[1] is None


def test_parameters_are_shared_and_detached():
    linear = nn.Linear(3, 2)
    network = lowering.lower(nn.Sequential(linear), torch.rand(2, 3))
    assert network.weights[0].data_ptr() == linear.weight.data_ptr()
    assert not network.weights[0].requires_grad
    assert network.weights[0].dtype == torch.float32


def test_a_parametrised_weight_is_evaluated():
    linear = parametrizations.spectral_norm(nn.Linear(6, 4)).double()
    agree(nn.Sequential(linear, nn.ReLU()).eval(), wide_input(5, 6))
    linear.train()
    with pytest.raises(CannotLower, match=r"writes to a parameter or buffer .* call model.eval"):
        lowering.lower(linear, wide_input(2, 6))


@pytest.mark.parametrize("activation", ["tanh", "maxmin", "elu:0.5"])
def test_all_of_an_mlp_vae_is_lowered(activation):
    vae = MLPVAE((2, 3), (8, 6), 4, activation, seed=3).double()
    x = torch.rand(7, 2, 3, dtype=torch.float64)
    mean, logvar = vae.encode(x)
    assert torch.allclose(net_forward(x.flatten(1), lowering.encoder_mean(vae, x)), mean, atol=1e-6)
    assert torch.allclose(
        net_forward(x.flatten(1), lowering.encoder_logvar(vae, x)), logvar, atol=1e-6
    )
    out, pixels = vae.decode(mean).flatten(1), vae.g(mean).flatten(1)
    assert torch.allclose(net_forward(mean, lowering.decoder(vae)), out, atol=1e-6)
    assert torch.allclose(net_forward(mean, lowering.pixels(vae)), pixels, atol=1e-6)


@pytest.mark.parametrize(
    ("likelihood", "natural", "pixels"),
    [("bernoulli", "identity", "sigmoid"), ("gaussian", "sigmoid", "sigmoid")],
)
def test_the_epilogue_of_a_decoder_that_ends_in_a_sigmoid(likelihood, natural, pixels):
    decoder = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 6), nn.Sigmoid())
    output = "mean" if likelihood == "gaussian" else "probabilities"
    vae = vae_of(decoder, likelihood=likelihood, decoder_output=output)
    z = torch.randn(5, 2)
    assert lowering.decoder(vae).activations == f"tanh,{natural}".split(",")
    assert lowering.pixels(vae).activations == f"tanh,{pixels}".split(",")
    assert torch.allclose(net_forward(z, lowering.decoder(vae)), vae.decode(z), atol=1e-6)
    assert torch.allclose(net_forward(z, lowering.pixels(vae)), vae.g(z), atol=1e-6)


def vae_of(decoder, **options):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    return VAE(encoder_mean=encoder, encoder_logvar=encoder, decoder=decoder, **options)


def test_parts_that_are_no_networks_say_so():
    with pytest.raises(CannotLower, match="a fixed tensor, not a network"):
        lowering.encoder_logvar(MLPVAE((6,), (4,), 2, fixed_std=0.1), torch.rand(2, 6))
    vae = vae_of(nn.Linear(2, 6), decoder_output="probabilities")
    with pytest.raises(CannotLower, match="do not come from a final Sigmoid"):
        lowering.decoder(vae, torch.rand(2, 2))
    with pytest.raises(CannotLower, match="come from tanh: no room for a sigmoid"):
        lowering.pixels(vae_of(nn.Sequential(nn.Linear(2, 6), nn.Tanh())))


def test_a_convolutional_vae_lowers():
    vae, x = ConvVAE((1, 8, 8), 2, 2).double(), torch.rand(5, 1, 8, 8, dtype=torch.float64)
    mean, logvar, why_not = lowering.encoder(vae, x)[:3]
    assert mean.layers[0].startswith("conv in=1x8x8 stride=2x2")
    assert not why_not
    assert torch.allclose(evaluate(x.flatten(1), mean), vae.encode(x)[0])
    assert torch.allclose(evaluate(x.flatten(1), logvar), vae.encode(x)[1])
    z = vae.encode(x)[0]
    assert torch.allclose(evaluate(z, lowering.decoder(vae, z)), vae.decode(z).flatten(1))
    assert backends.fused(mean, x).ok == bool(vf.supports("net_forward", "cpp"))
    assert backends.fused(mean, x, "reference")


def test_python_methods_and_module_attributes_lower():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.decode = nn.Sequential(nn.Linear(2, 6))
            self.trunk, self.heads = nn.Linear(6, 5), nn.Linear(5, 4)

        def encode(self, x):
            return self.heads(torch.relu(self.trunk(x))).view(-1, 2, 2).unbind(-1)

    vae, x = as_vae(Plain()), torch.rand(3, 6)
    mean, logvar, why_not = lowering.encoder(vae, x)[:3]
    assert torch.allclose(net_forward(x, mean), vae.encode(x)[0], atol=1e-6)
    assert torch.allclose(net_forward(x, logvar), vae.encode(x)[1], atol=1e-6)
    assert mean.weights[0].data_ptr() == logvar.weights[0].data_ptr()
    assert not why_not
    assert lowering.decoder(vae, torch.rand(3, 2)).activations == ["identity"]


def test_an_encoder_that_acts_on_the_last_axis_is_not_an_mlp_of_the_event():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.narrow, self.decode = nn.Linear(3, 2), nn.Linear(4, 6)

        def encode(self, x):
            h = self.narrow(x).flatten(1)
            return h, h

    vae = as_vae(Last(), event_shape=(2, 3))
    with pytest.raises(CannotLower, match=r"'narrow' \(Linear\) moves or mixes the rows"):
        lowering.encoder_mean(vae, torch.rand(4, 2, 3))

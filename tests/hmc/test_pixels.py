"""The law of chains through convolutional decoders: a closed form, and calibration."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from vaefast.bench.pixels import published_decoder
from vaefast.functional.network import evaluate
from vaefast.hmc import sample
from vaefast.models.vae import VAE

A = torch.tensor([[1.0, 0.2, 0.0], [0.3, 2.0, 0.1], [0.0, -0.4, 0.3], [0.5, 0.0, 0.0]]).double()


class Convolution(nn.Module):
    """z ↦ A z + b as a transposed convolution from one pixel to 2 by 2."""

    def __init__(self, bias):
        super().__init__()
        self.layer = nn.ConvTranspose2d(3, 1, 2, bias=False, dtype=A.dtype)
        self.bias = nn.Parameter(bias)
        with torch.no_grad():
            self.layer.weight.copy_(A.T.view(3, 1, 2, 2))

    def forward(self, z):
        return self.layer(z.view(-1, 3, 1, 1)).flatten(1) + self.bias


def test_linear_gaussian_posterior(linear_gaussian):
    model = linear_gaussian(A, rows=2)
    model.vae.decoder = Convolution(model.vae.decoder.bias.detach())
    result = sample(
        model.vae, model.x, chains=1500, warmup=60, steps=25, leapfrog=6, seed=1, keep="last"
    )
    assert result.reproducible == "bits"  # in the kernels
    z = result.z[:, :, 0]
    C = z.shape[1]
    standard = torch.linalg.solve_triangular(
        torch.linalg.cholesky(model.covariance), (z - model.mean[:, None]).mT, upper=False
    )
    assert standard.mean(2).abs().max() < 4.5 / math.sqrt(C)
    assert (standard @ standard.mT / C - torch.eye(3)).abs().max() < 5.0 * math.sqrt(2 / C)


class Published(nn.Module):
    """The published decoder, with two latents."""

    def __init__(self):
        super().__init__()
        net = published_decoder(2)
        options = ({"dilation": 2}, {}, {"padding": 1}, *({"stride": 2, "padding": 1},) * 2)
        layers = []
        for weight, bias, option in zip(net.weights, net.biases, options):
            ends, kernel = weight.shape[:2], weight.shape[2]
            layers += [nn.ConvTranspose2d(*ends, kernel, **option), nn.ReLU()]
            layers[-2].load_state_dict({"weight": weight, "bias": bias})
        self.layers = nn.Sequential(*layers[:-1])
        self.net = net

    def forward(self, z):
        return self.layers(z.view(-1, 2, 1, 1))


def published_vae():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    return VAE(encoder_mean=encoder, encoder_logvar=torch.zeros(2), decoder=Published()).eval()


def test_the_published_decoder_is_the_module():
    decoder, z = Published(), torch.randn(4, 2)
    with torch.no_grad():
        torch.testing.assert_close(evaluate(z, decoder.net), decoder(z).flatten(1))


@pytest.mark.proof
@pytest.mark.parametrize("how", [{"leapfrog": 8}, {}, {"mass": "unit", "leapfrog": 8}])
def test_simulation_based_calibration_of_the_published_decoder(how):
    """z* ~ p(z), x ~ p(x|z*): the rank of z* among posterior draws is uniform."""
    vae, rows, draws = published_vae(), 300, 9
    generator = torch.Generator().manual_seed(9)
    truth = torch.randn(rows, 2, generator=generator)
    with torch.no_grad():
        image = vae.g(truth)
    x = (torch.rand(image.shape, generator=generator) < image).float()
    result = sample(vae, x, init=truth, warmup=60, steps=6 * draws, keep=draws, seed=10, **how)
    rank = (result.z[:, 0] < truth[:, None]).sum(1)  # [B, d] in 0..9
    for i in range(2):
        counts = torch.bincount(rank[:, i], minlength=draws + 1)
        assert stats.chisquare(counts).pvalue > 1e-4

"""VAEs whose margins are known, and VAEs of every kind."""

import pytest
import torch
from torch import nn
from unlowered import unlowered

from vaefast.models import MLPVAE, VAE, ConvVAE, as_vae


class Plain(nn.Module):
    """A user's module: encode and decode are Python code around layers."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def encode(self, x):
        return self.inner.encode(x)

    def decode(self, z):
        return self.inner.decode(z)


def net():
    return MLPVAE((1, 4, 4), hidden=(12, 10), latent=3, seed=1)


def gaussian():
    return MLPVAE((1, 4, 4), (12,), 3, "leaky_relu:0.2", "gaussian", 0.5, fixed_std=[0.3, 0.7, 2.0])


KINDS = {
    "mlp": net,
    "gaussian": gaussian,
    "conv": lambda: ConvVAE((1, 8, 8), channels=3, latent=3, seed=3),
    "unlowered": lambda: unlowered((1, 8, 8), channels=3, latent=3, seed=3),
    "plain": lambda: as_vae(Plain(net())),
    "plain_gaussian": lambda: as_vae(Plain(gaussian()), likelihood="gaussian"),
}


@pytest.fixture
def build():
    """A VAE by the name of its kind, in float64 and evaluation mode."""
    return lambda kind: KINDS[kind]().double().eval()


@pytest.fixture(params=["mlp", "gaussian", "conv", "unlowered", "plain"])
def vae(request, build):
    return build(request.param)


@pytest.fixture
def x(vae):
    side = 8 if any(isinstance(m, nn.Conv2d) for m in vae.modules()) else 4
    generator = torch.Generator().manual_seed(7)
    return torch.rand(5, 1, side, side, generator=generator, dtype=torch.float64)


@pytest.fixture
def linear():
    """μ(x) = Wx, σ constant, g(z) = Az: every quantity has a closed form."""

    def make(W, std, A):
        mean, decoder = (nn.Linear(m.shape[1], m.shape[0], bias=False) for m in (W, A))
        mean.weight.data, decoder.weight.data = W.double(), A.double()
        logvar = 2 * torch.as_tensor(std).double().log()
        return VAE(
            encoder_mean=mean, encoder_logvar=logvar, decoder=decoder, likelihood="gaussian"
        ).eval()

    return make

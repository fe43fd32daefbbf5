"""The VAEs whose geometry is tested: both lowered, half lowered, and not lowered at all."""

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
    return MLPVAE((1, 4, 4), hidden=(12, 10), latent=3, activation="tanh", seed=1)


def gaussian():
    return MLPVAE((1, 4, 4), (12,), 3, "leaky_relu:0.2", "gaussian", 0.5, fixed_std=[0.3, 0.7, 2.0])


def mixed():
    """The encoder is lowered, the decoder has a layer without a fused form."""
    torch.manual_seed(2)
    return VAE(
        encoder_mean=nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Softplus(), nn.Linear(8, 3)),
        encoder_logvar=nn.Sequential(nn.Flatten(), nn.Linear(16, 3)),
        decoder=nn.Sequential(
            nn.Linear(3, 8),
            nn.LayerNorm(8),
            nn.SiLU(),
            nn.Linear(8, 16),
            nn.Unflatten(1, (1, 4, 4)),
        ),
    )


KINDS = {
    "mlp": net,
    "gaussian": gaussian,
    "mixed": mixed,
    "conv": lambda: ConvVAE((1, 8, 8), channels=3, latent=3, seed=3),
    "unlowered": lambda: unlowered((1, 8, 8), channels=3, latent=3, seed=3),
    "plain": lambda: as_vae(Plain(net())),
}


@pytest.fixture
def build():
    """A VAE by the name of its kind, in float64 and evaluation mode."""
    return lambda kind: KINDS[kind]().double().eval()


@pytest.fixture(params=KINDS)
def vae(request, build):
    return build(request.param)


@pytest.fixture
def x(vae):
    side = 8 if any(isinstance(m, nn.Conv2d) for m in vae.modules()) else 4
    generator = torch.Generator().manual_seed(7)
    return torch.rand(5, 1, side, side, generator=generator, dtype=torch.float64)


@pytest.fixture
def true_jacobian():
    """J [B, m, n] of any function of a batch, one row and one output at a time."""

    def compute(function, points):
        rows = []
        for point in points:
            full = torch.autograd.functional.jacobian(lambda v: function(v[None])[0], point)
            rows.append(full.reshape(-1, point.numel()))
        return torch.stack(rows)

    return compute


@pytest.fixture
def maps(vae, true_jacobian, x):
    """The Jacobians of every map at x, by autograd."""
    with torch.no_grad():
        z = vae.encode(x)[0]
    return {
        "encoder": true_jacobian(lambda v: vae.encode(v)[0], x),
        "std": true_jacobian(lambda v: vae.posterior(v)[1], x),
        "decoder": true_jacobian(vae.g, z),
        "reconstruction": true_jacobian(vae.reconstruct, x),
    }

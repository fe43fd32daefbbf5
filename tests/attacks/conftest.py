"""Small models for the attacks' tests."""

import pytest
import torch
from torch import nn

from vaefast.models.vae import VAE

EVENT = (1, 4, 4)
PIXELS = 16


def net(inputs: int, outputs: int, dtype: torch.dtype) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 12), nn.Tanh(), nn.Linear(12, outputs)).to(
        dtype
    )


class Opaque(nn.Module):
    """The identity, as no network computes it: a running maximum of one entry."""

    def forward(self, x):
        return x.unsqueeze(-1).cummax(-1).values.squeeze(-1)


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small only lose time to a thread pool."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_vae():
    def make(dtype=torch.float64, latents=3, seed=0, opaque=False):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            nets = [net(PIXELS, latents, dtype), net(PIXELS, latents, dtype)]
            nets.append(net(latents, PIXELS, dtype))
            mean, logvar, decoder = (nn.Sequential(Opaque(), n) if opaque else n for n in nets)
            return VAE(
                encoder_mean=mean,
                encoder_logvar=logvar,
                decoder=decoder,
                event_shape=EVENT,
            ).eval()

    return make


@pytest.fixture
def make_images():
    def make(rows, dtype=torch.float64, seed=1):
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(rows, *EVENT, generator=generator, dtype=torch.float64).to(dtype)

    return make


@pytest.fixture
def linear_vae():
    """mean(x) = A x (no bias) with sigma constant; returns (vae, A)."""

    def make(rows=3, latents=3, dtype=torch.float64):
        generator = torch.Generator().manual_seed(3)
        a = torch.randn(latents, PIXELS, generator=generator, dtype=torch.float64)
        encoder = nn.Linear(PIXELS, latents, bias=False)
        encoder.weight = nn.Parameter(a.clone())
        vae = VAE(
            encoder_mean=nn.Sequential(nn.Flatten(), encoder),
            encoder_logvar=torch.full((latents,), -1.0, dtype=torch.float64),
            decoder=nn.Linear(latents, PIXELS, dtype=torch.float64),
            likelihood="gaussian",
            event_shape=EVENT,
        ).eval()
        return vae.to(dtype), a

    return make

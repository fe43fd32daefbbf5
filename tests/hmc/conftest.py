"""Small models with known posteriors."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from vaefast.models.vae import VAE


class Opaque(nn.Module):
    """A module that no network is (a running maximum of one entry), and counts calls and rows."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.calls = 0
        self.rows: list[int] = []

    def forward(self, z: Tensor) -> Tensor:
        self.calls += 1
        self.rows.append(len(z))
        return self.module(z.unsqueeze(-1).cummax(-1).values.squeeze(-1))


@dataclass(frozen=True)
class LinearGaussian:
    """x|z ~ N(Az + b, s²I), z ~ N(0, I): the posterior is N(m, V)."""

    vae: VAE
    x: Tensor  # [B, D]
    mean: Tensor  # [B, d]
    covariance: Tensor  # [d, d]


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


@pytest.fixture
def opaque():
    return Opaque


@pytest.fixture
def linear_gaussian():
    """Build a :class:`LinearGaussian` from A [D, d]; ``generic`` hides the decoder's layers."""

    def build(A: Tensor, rows: int = 3, obs_std: float = 0.5, generic: bool = False):
        generator = torch.Generator().manual_seed(7)
        D, d = A.shape
        b = torch.randn(D, generator=generator, dtype=A.dtype)
        x = torch.randn(rows, D, generator=generator, dtype=A.dtype)
        decoder = linear(A, b)
        vae = VAE(
            encoder_mean=linear(torch.zeros(d, D, dtype=A.dtype)),
            encoder_logvar=torch.zeros(d, dtype=A.dtype),
            decoder=Opaque(decoder) if generic else decoder,
            likelihood="gaussian",
            obs_std=obs_std,
        )
        precision = torch.eye(d, dtype=A.dtype) + A.T @ A / obs_std**2
        covariance = torch.linalg.inv(precision)
        mean = (x - b) @ A @ covariance / obs_std**2
        return LinearGaussian(vae.eval(), x, mean, covariance)

    return build


@pytest.fixture
def mlp_vae():
    """Build a VAE with a tanh decoder d → 8 → D; ``generic`` hides the decoder's layers."""

    def build(
        likelihood: str = "bernoulli",
        d: int = 2,
        D: int = 6,
        generic: bool = False,
        dtype: torch.dtype = torch.float64,
        seed: int = 3,
        **options,
    ):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            decoder = nn.Sequential(nn.Linear(d, 8), nn.Tanh(), nn.Linear(8, D))
            encoder = nn.Sequential(nn.Flatten(), nn.Linear(D, d))
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.mul_(2.0)
        vae = VAE(
            encoder_mean=encoder,
            encoder_logvar=torch.full((d,), -1.0),
            decoder=Opaque(decoder) if generic else decoder,
            likelihood=likelihood,
            obs_std=0.5 if likelihood == "gaussian" else 1.0,
            **options,
        )
        return vae.to(dtype).eval()

    return build


@pytest.fixture
def budget():
    """Set the memory budget; the default returns after the test."""
    from vaefast.runtime.memory import set_memory

    yield set_memory
    set_memory(1 << 30)

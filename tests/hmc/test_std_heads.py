"""A decoder that gives each pixel's variance: the potential in float64, and calibration."""

import torch
from scipy import stats
from torch import nn
from torch.distributions import Normal

from vaefast.hmc import sample
from vaefast.hmc.target import GenericTarget
from vaefast.models import VAE
from vaefast.models.example import Example
from vaefast.models.forms import Forms

LATENTS, PIXELS = 2, 5


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(LATENTS, 8), nn.Tanh())
        self.mean, self.logvar = nn.Linear(8, PIXELS), nn.Linear(8, PIXELS)

    def forward(self, z):
        h = self.body(2.0 * z)
        return 2.0 * self.mean(h), self.logvar(h) - 1.0


def build():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = VAE(
            encoder_mean=nn.Linear(PIXELS, LATENTS),
            encoder_logvar=torch.full((LATENTS,), -1.0),
            decoder=Heads(),
            likelihood="gaussian",
            decoder_output="mean_logvar",
        )
    return vae.double().eval()


def test_the_potential_and_its_gradient_are_autograds():
    vae, generator = build(), torch.Generator().manual_seed(1)
    x = torch.randn(3, PIXELS, generator=generator, dtype=torch.float64)
    z = torch.randn(6, LATENTS, generator=generator, dtype=torch.float64)
    vae.encode(x)
    target = GenericTarget(
        x=x,
        forms=Forms(vae, Example(x[:2], z[:2], None)),
        likelihood="gaussian",
        inv_mass=None,
        leapfrog=1,
        backend=None,
    )
    U, grad = target.potential(z)
    z.requires_grad_()
    mean, logvar = vae.decoder(z)
    logp = Normal(mean, (0.5 * logvar).exp()).log_prob(x.repeat_interleave(2, 0)).sum(1)
    expected = -logp - Normal(0.0, 1.0).log_prob(z).sum(1)
    (slope,) = torch.autograd.grad(expected.sum(), z)
    torch.testing.assert_close(U, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grad, slope, rtol=1e-10, atol=1e-10)


def test_simulation_based_calibration():
    """z* ~ p(z), x ~ p(x|z*): the rank of z* among posterior draws is uniform."""
    vae, rows, draws = build(), 600, 9
    generator = torch.Generator().manual_seed(9)
    truth = torch.randn(rows, LATENTS, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        mean, logvar = vae.decoder(truth)
    noise = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
    x = mean + (0.5 * logvar).exp() * noise
    result = sample(vae, x, warmup=60, steps=6 * draws, keep=draws, leapfrog=6, seed=10)
    rank = (result.z[:, 0] < truth[:, None]).sum(1)
    for i in range(LATENTS):
        counts = torch.bincount(rank[:, i], minlength=draws + 1)
        assert stats.chisquare(counts).pvalue > 1e-4

"""What tests of the sampler share: posteriors of two independent latents."""

import torch
from torch import nn

from vaefast.models import VAE


def two_latents(weight):
    """x = weight·z_2 + N(0, 1), one pixel: latent 1 keeps its prior, the other narrows."""
    vae = VAE(
        encoder_mean=nn.Linear(1, 2),
        encoder_logvar=torch.zeros(2),
        decoder=nn.Linear(2, 1, bias=False),
        likelihood="gaussian",
    ).double()
    with torch.no_grad():
        vae.decoder.weight.copy_(torch.tensor([[0.0, weight]]))
    return vae

"""A convolutional VAE that stays a module: no network has its activation."""

from torch import nn

from vaefast.models import ConvVAE


def unlowered(*args, **options):
    """As :class:`ConvVAE`, with x / (1 + |x|) in place of every ReLU."""
    vae = ConvVAE(*args, **options)
    for part in (vae.encoder.trunk, vae.decoder):
        for index, layer in enumerate(part):
            if isinstance(layer, nn.ReLU):
                part[index] = nn.Softsign()
    return vae.eval()

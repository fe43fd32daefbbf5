"""A batch through a VAE at one draw of z, which every objective starts with."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.elbo import elbo_terms
from vaefast.models.context import as_keyword
from vaefast.models.vae import VAE
from vaefast.training.step import Step

__all__ = ["Draw", "draw"]


class Draw(NamedTuple):
    """What the VAE makes of n inputs, z ~ q(z|x).

    Args:
        mean, logvar: of q(z|x), [n, d].
        z: the draw [n, d].
        logp: log p(x|z) [n] float64, nats.
        kl: KL(q(z|x) ‖ p(z)) [n] float64, nats.
    """

    mean: Tensor
    logvar: Tensor
    z: Tensor
    logp: Tensor
    kl: Tensor


def draw(vae: VAE, x: Tensor, step: Step, target: Tensor | None = None) -> Draw:
    """Encode x [n, *event] and judge the draw by log p(target|z), x itself by default."""
    mean, logvar = vae.encode(x, **as_keyword(step.context))
    noise = step.normal(mean)
    wanted = x if target is None else target
    logp, kl = elbo_terms(vae, wanted, mean, logvar, noise, step.context)
    return Draw(mean, logvar, mean + torch.exp(0.5 * logvar) * noise, logp, kl)

"""Theorem 2 as the published code applies it, and Theorem 1 for any input."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vaefast.certify import Event
from vaefast.certify.theorems import Setting, largest_shift, misses
from vaefast.models import VAE, lipschitz_constants
from vaefast.models.lipschitz import Constants
from vaefast.reproduce.barrett2022.models import SIGMOID

__all__ = ["promise_anywhere", "published_margins"]


@torch.no_grad()
def published_margins(vae: VAE, x: Tensor, r: float) -> Tensor:
    """max(m₁, m₂) [B] with the constants of the layers before the sigmoids, four times a and c."""
    own = lipschitz_constants(vae, x[:1])
    std = vae.posterior(x)[1].flatten(1).double()
    norm, radius = std.norm(dim=1), torch.full((len(x),), r, dtype=torch.float64, device="cpu")
    constants = Constants(own.a / SIGMOID, own.b, own.c / SIGMOID)
    at = Setting(constants, norm, std.amax(1), radius, std.shape[1])
    bounds = largest_shift(at, Event.TWO_DRAWS)
    return torch.maximum(bounds["theorem 2, m1"], bounds["theorem 2, m2"])


def promise_anywhere(
    constants: np.ndarray, r: float, latents: int, lengths: np.ndarray
) -> np.ndarray:
    """A lower bound of P(within r) of two draws [K] at every input whatever, after ‖δ‖₂ [K].

    Args:
        constants: a, b, c and the ball of σ [4]; σ may fill it in one latent.
    """
    own = Constants(*constants.tolist())
    norm, radius = (
        torch.full((1,), v, dtype=torch.float64, device="cpu") for v in (own.std_norm, r)
    )
    at = Setting(own, norm, norm, radius, latents)
    found = misses(at, Event.TWO_DRAWS, torch.from_numpy(lengths)[None])
    least: np.ndarray = 1.0 - torch.stack(list(found.values())).amin(0)[0].numpy()
    return least

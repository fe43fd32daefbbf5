"""What a Lipschitz VAE exports: torch's own layers, in a model that can be built again by size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from vaefast.models.activations import MaxMin
from vaefast.models.lipschitz.layers import BallOfStd, LogVariance
from vaefast.models.vae import VAE

__all__ = ["ExportedLipschitzVAE"]


class ExportedLipschitzVAE(VAE):
    """The shape of a model that ``LipschitzVAE.export()`` made, with torch's initial weights.

    Its weights come from ``export()`` or from a file; nothing here makes them Lipschitz. What holds
    of them is computed (:func:`vaefast.models.lipschitz_constants`).

    Args:
        event_shape, hidden, latent: as for :class:`LipschitzVAE`.
        ball: whether σ is projected onto a ball; its radius is among the weights.
        fixed_std: whether σ depends on no x; it is among the weights.
        convolutional: layers as :class:`LipschitzConvVAE` has them, which is not needed for them.
        likelihood, obs_std: as for :class:`VAE`.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        hidden: Sequence[int],
        latent: int,
        *,
        ball: bool = False,
        fixed_std: bool = False,
        convolutional: bool = False,
        likelihood: str = "continuous_bernoulli",
        obs_std: float = 1.0,
    ) -> None:
        event, hidden = tuple(event_shape), tuple(hidden)
        up, down = (_up_images, _down_images) if convolutional else (_up, _down)
        scale: Any = torch.zeros(latent, dtype=torch.float32, device="cpu")
        if not fixed_std:
            projected = [BallOfStd(1.0)] if ball else []
            scale = [*up(event, hidden, latent), nn.Sigmoid(), *projected, LogVariance()]
            scale = nn.Sequential(*scale)
        super().__init__(
            encoder_mean=nn.Sequential(*up(event, hidden, latent)),
            encoder_logvar=scale,
            decoder=nn.Sequential(*down(event, hidden, latent)),
            likelihood=likelihood,
            obs_std=obs_std,
            decoder_output="mean" if likelihood == "gaussian" else "logits",
            event_shape=event,
        )
        self.latent_dim = latent
        self._config = {"hidden": list(hidden), "ball": ball, "convolutional": convolutional}

    def config(self) -> dict[str, Any]:
        """The constructor's arguments that make a model of this one's shape."""
        return self._config | {
            "event_shape": list(self.event_shape or ()),
            "latent": self.latent_dim,
            "fixed_std": self.fixed_std,
            "likelihood": self.likelihood,
            "obs_std": self.obs_std,
        }


def _linear(widths: Sequence[int]) -> list[nn.Module]:
    """Linear layers between the widths, MaxMin between these."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), MaxMin()]
    return layers[:-1]


def _up(event: Sequence[int], hidden: Sequence[int], latent: int) -> list[nn.Module]:
    return [nn.Flatten(), *_linear((math.prod(event), *hidden, latent))]


def _down(event: Sequence[int], hidden: Sequence[int], latent: int) -> list[nn.Module]:
    layers = _linear((latent, *reversed(hidden), math.prod(event)))
    return [*layers, nn.Unflatten(1, tuple(event))]


def _up_images(event: Sequence[int], hidden: Sequence[int], latent: int) -> list[nn.Module]:
    first, second = hidden
    flat = second * event[1] // 4 * (event[2] // 4)
    closing: dict[str, Any] = {"kernel_size": 3, "stride": 2, "padding": 1}
    before = [nn.Conv2d(event[0], first, **closing), MaxMin()]
    return [
        *before,
        nn.Conv2d(first, second, **closing),
        nn.Flatten(),
        MaxMin(),
        nn.Linear(flat, latent),
    ]


def _down_images(event: Sequence[int], hidden: Sequence[int], latent: int) -> list[nn.Module]:
    first, second = hidden
    shape = second, event[1] // 4, event[2] // 4
    opening: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1}
    layers = [nn.Linear(latent, math.prod(shape)), MaxMin(), nn.Unflatten(1, shape)]
    layers += [nn.ConvTranspose2d(second, first, **opening), MaxMin()]
    return [*layers, nn.ConvTranspose2d(first, event[0], **opening)]

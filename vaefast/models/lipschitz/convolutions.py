"""A convolutional Lipschitz VAE, of the layers of deel-torchlip."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vaefast.models.activations import MaxMin
from vaefast.models.calls import check_event_shape, check_sizes
from vaefast.models.lipschitz.layers import BjorckLinear, Scaled
from vaefast.models.lipschitz.vae import LipschitzVAE

__all__ = ["Convolution", "LipschitzConvVAE"]


class Convolution(Scaled):
    """scale·conv(x), where deel-torchlip keeps conv about 1-Lipschitz.

    Args:
        inputs, outputs: channels.
        transposed: opens by 2 (4×4) instead of closing by 2 (3×3).
    """

    def __init__(self, inputs: int, outputs: int, transposed: bool = False) -> None:
        super().__init__(1.0)
        lip = _torchlip()
        if transposed:
            inner = lip.SpectralConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
        else:
            inner = lip.SpectralConv2d(inputs, outputs, 3, stride=2, padding=1)
        self.inner: Any = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.inner(x)


class LipschitzConvVAE(LipschitzVAE):
    """A :class:`LipschitzVAE` of convolutions: two that halve, a linear layer, and back.

    Each encoder: 3×3 convolution of stride 2, MaxMin, another, MaxMin, linear; the decoder the same
    in reverse with 4×4 transposed ones. MaxMin pairs neighbouring columns. The convolutions are
    deel-torchlip's, whose own constant is an estimate; the certificate computes its bounds, padding
    included, and :meth:`export` shrinks what exceeds them.

    It cannot be saved by ``models.save``, its :meth:`export` can; keep its ``state_dict()``.

    Args:
        event_shape: [channels, height, width], height and width multiples of 4, at least 8.
        a, b, c: constants, as for :class:`LipschitzVAE`.
        hidden: channels of the two convolutions.
        latent: number of latents d.
        options: ``std_norm``, ``fixed_std`` and the rest as for :class:`LipschitzVAE`.

    Raises:
        ImportError: deel-torchlip is missing.
        ValueError: sides of another kind, other than two channel counts, or what
            :class:`LipschitzVAE` refuses.

    Source: Serrurier et al., "Achieving robustness in classification using optimal transport with
    hinge regularization", CVPR 2021 (the layers).
    """

    convolutional = True

    def __init__(
        self,
        event_shape: Sequence[int] = (1, 28, 28),
        a: float | None = None,
        b: float | None = None,
        c: float | None = None,
        hidden: Sequence[int] = (16, 32),
        latent: int = 16,
        **options: Any,
    ) -> None:
        _check_image(check_event_shape(event_shape))
        if len(check_sizes(hidden, "hidden")) != 2:
            raise ValueError(f"hidden must be two numbers of channels, got {list(hidden)}")
        _torchlip()
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(options.get("seed", 0))
            super().__init__(event_shape, a, b, c, hidden, latent, **options)

    @staticmethod
    def _up(
        event: Sequence[int], hidden: Sequence[int], latent: int, how: tuple[int, int]
    ) -> list[nn.Module]:
        first, second = hidden
        flat = second * event[1] // 4 * (event[2] // 4)
        convolutions = Convolution(event[0], first), MaxMin(), Convolution(first, second)
        last = BjorckLinear(flat, latent, 1.0, *how)
        return [*convolutions, nn.Flatten(), MaxMin(), last]

    @staticmethod
    def _down(
        event: Sequence[int], hidden: Sequence[int], latent: int, how: tuple[int, int]
    ) -> list[nn.Module]:
        first, second = hidden
        shape = (second, event[1] // 4, event[2] // 4)
        linear = BjorckLinear(latent, second * shape[1] * shape[2], 1.0, *how)
        opened = Convolution(second, first, transposed=True), MaxMin()
        last = Convolution(first, event[0], transposed=True)
        return [linear, MaxMin(), nn.Unflatten(1, shape), *opened, last]


def _torchlip() -> Any:
    try:
        return importlib.import_module("deel.torchlip")
    except ImportError:
        raise ImportError(
            "LipschitzConvVAE needs deel-torchlip; pip install 'vaefast[lipschitz]'"
        ) from None


def _check_image(event: tuple[int, ...]) -> None:
    if len(event) != 3 or any(side % 4 or side < 8 for side in event[1:]):
        raise ValueError(
            "event_shape must be [channels, height, width] with sides that are multiples of 4 from "
            f"8, got {list(event)}; LipschitzVAE takes any shape"
        )

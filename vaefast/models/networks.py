"""Networks that vaefast trains and saves: a multilayer perceptron and a convolutional VAE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from vaefast import checks
from vaefast.models.activations import MaxMin, activation_module
from vaefast.models.calls import check_event_shape, check_sizes
from vaefast.models.vae import VAE
from vaefast.runtime.defaults import default_device

__all__ = ["MLPVAE", "ConvVAE"]


class MLPVAE(VAE):
    """A VAE of two multilayer perceptrons; the encoder's heads share their hidden layers.

        x - hidden - (μ, log σ²)   and   z - reversed(hidden) - natural parameters

    All of it is lowered to the fused ops.

    Args:
        event_shape: shape of one input.
        hidden: widths of the encoder's hidden layers; the decoder has them in reverse order.
        latent: number of latents d.
        activation: of every hidden layer, as in "tanh" or "leaky_relu:0.2"; "maxmin" needs even
            widths.
        likelihood, obs_std: as for :class:`VAE`.
        fixed_std: None, or σ > 0 independent of x: a number or d numbers.
        seed: of the initial weights, Xavier normal with zero biases.

    Raises:
        TypeError: a size is not a whole number, or a standard deviation no number.
        ValueError: a size below 1, an unknown name, or a standard deviation that is not positive.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        hidden: Sequence[int] = (512, 512),
        latent: int = 32,
        activation: str = "tanh",
        likelihood: str = "bernoulli",
        obs_std: float = 1.0,
        fixed_std: float | Sequence[float] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        event = check_event_shape(event_shape)
        hidden = check_sizes(hidden, "hidden")
        checks.count(latent, "latent")
        _check_pairs(hidden, activation)
        up = (math.prod(event), *hidden)
        down = (latent, *reversed(hidden))
        with torch.device("meta"):
            trunk = nn.Sequential(nn.Flatten(), *_hidden_layers(up, activation))
            mean = nn.Linear(up[-1], latent)
            logvar: nn.Module | Tensor = nn.Linear(up[-1], latent)
            decoder = nn.Sequential(
                *_hidden_layers(down, activation),
                nn.Linear(down[-1], up[0]),
                nn.Unflatten(1, event),
            )
        if fixed_std is not None:
            logvar = _fixed_logvar(fixed_std, latent)
        super().__init__(
            trunk=trunk,
            encoder_mean=mean,
            encoder_logvar=logvar,
            decoder=decoder,
            likelihood=likelihood,
            obs_std=obs_std,
            event_shape=event,
        )
        self.hidden, self.latent_dim, self.activation = hidden, latent, activation
        _initialise(self, seed)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments that make a model of this one's shape."""
        logvar = self.encoder.logvar
        std = torch.exp(0.5 * logvar.detach()).tolist() if isinstance(logvar, Tensor) else None
        return {
            "event_shape": list(self.event_shape or ()),
            "hidden": list(self.hidden),
            "latent": self.latent_dim,
            "activation": self.activation,
            "likelihood": self.likelihood,
            "obs_std": self.obs_std,
            "fixed_std": std,
        }


class ConvVAE(VAE):
    """The convolutional VAE of Kuzina et al. for small images.

    At 28×28 with c = 32 channels the encoder's 3×3 convolutions of stride 2 have c, 2c, 3c, 4c
    channels (28, 14, 7, 4, 2), and two more are its heads (1×1); the decoder's transposed
    convolutions have 4c, 3c, 2c, c channels (1, 5, 7, 7, 14, 28); all with ReLU. Other sizes
    keep this plan: the encoder halves until 2×2, the decoder opens to a quarter of the side.

    Args:
        event_shape: [channels, height, width], height and width multiples of 4 from 8 to 64.
        channels: c.
        latent: number of latents d.
        likelihood, obs_std: as for :class:`VAE`.
        seed: of the initial weights, Xavier normal with zero biases.

    Raises:
        TypeError: a size is not a whole number.
        ValueError: a size below 1, an unknown name, or sides that are not of the kind above.

    Source: Kuzina, Welling, Tomczak, "Alleviating adversarial attacks on variational autoencoders
    with MCMC", NeurIPS 2022, their code; ours returns logits also for three channels.
    """

    def __init__(
        self,
        event_shape: Sequence[int] = (1, 28, 28),
        channels: int = 32,
        latent: int = 64,
        likelihood: str = "bernoulli",
        obs_std: float = 1.0,
        *,
        seed: int = 0,
    ) -> None:
        event = _check_image(event_shape)
        checks.count(channels, "channels")
        checks.count(latent, "latent")
        with torch.device("meta"):
            trunk, width = _conv_trunk(event, channels)
            mean, logvar = (
                nn.Sequential(nn.Conv2d(width, latent, 3, stride=2, padding=1), nn.Flatten())
                for _ in range(2)
            )
            decoder = _conv_decoder(event, channels, latent)
        super().__init__(
            trunk=trunk,
            encoder_mean=mean,
            encoder_logvar=logvar,
            decoder=decoder,
            likelihood=likelihood,
            obs_std=obs_std,
            event_shape=event,
        )
        self.channels, self.latent_dim = channels, latent
        _initialise(self, seed)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments that make a model of this one's shape."""
        return {
            "event_shape": list(self.event_shape or ()),
            "channels": self.channels,
            "latent": self.latent_dim,
            "likelihood": self.likelihood,
            "obs_std": self.obs_std,
        }


def _hidden_layers(widths: Sequence[int], activation: str) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation_module(activation)]
    return layers


def _conv_trunk(event: tuple[int, ...], channels: int) -> tuple[nn.Sequential, int]:
    """Stride-2 convolutions until no side is longer than 2, and how many channels they end in."""
    width, side = event[0], max(event[1:])
    layers: list[nn.Module] = []
    for stage in range(1, math.ceil(math.log2(side))):
        layers += [nn.Conv2d(width, stage * channels, 3, stride=2, padding=1), nn.ReLU()]
        width = stage * channels
    return nn.Sequential(*layers), width


def _conv_decoder(event: tuple[int, ...], channels: int, latent: int) -> nn.Sequential:
    quarter = (event[1] // 4, event[2] // 4)
    double: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1}
    return nn.Sequential(
        nn.Unflatten(1, (latent, 1, 1)),
        *_open(latent, 4 * channels, 3 * channels, quarter),  # 1×1 to H/4 × W/4
        nn.ConvTranspose2d(3 * channels, 2 * channels, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * channels, channels, **double),
        nn.ReLU(),
        nn.ConvTranspose2d(channels, event[0], **double),
    )


def _open(latent: int, wide: int, out: int, size: tuple[int, int]) -> list[nn.Module]:
    if min(size) <= 4:
        return [nn.ConvTranspose2d(latent, out, size), nn.ReLU()]
    kernel = (size[0] - 4, size[1] - 4)  # 5×5 to size
    return [
        nn.ConvTranspose2d(latent, wide, 3, dilation=2),
        nn.ReLU(),
        nn.ConvTranspose2d(wide, out, kernel),
        nn.ReLU(),
    ]


def _initialise(vae: VAE, seed: int) -> None:
    """Xavier-normal weights and zero biases on the default device, from a generator of our own.

    On the meta device the parameters stay there, without memory: for weights from elsewhere.
    """
    device = default_device()
    if device.type == "meta":
        return
    generator = torch.Generator(device="cpu").manual_seed(seed)
    for layer in vae.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.to_empty(device="cpu")
            nn.init.xavier_normal_(layer.weight, generator=generator)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    vae.to(device)


def _fixed_logvar(fixed_std: float | Sequence[float], latent: int) -> Tensor:
    if isinstance(fixed_std, list | tuple):
        values = list(fixed_std)
    else:
        values = [fixed_std] * latent
    if len(values) != latent:
        raise ValueError(f"fixed_std must be a number or d = {latent} numbers, got {len(values)}")
    for value in values:
        if not 0.0 < checks.number(value, "fixed_std") < math.inf:
            raise ValueError(f"fixed_std must be positive and finite, got {value:g}")
    logvar = [2.0 * math.log(value) for value in values]
    return torch.tensor(logvar, device="cpu", dtype=torch.get_default_dtype())


def _check_pairs(hidden: tuple[int, ...], activation: str) -> None:
    odd = [width for width in hidden if width % 2]
    if isinstance(activation_module(activation), MaxMin) and odd:
        raise ValueError(f'hidden must be even widths with activation "maxmin", got {odd[0]}')


def _check_image(event_shape: Sequence[int]) -> tuple[int, ...]:
    event = check_event_shape(event_shape)
    sides_fit = all(side % 4 == 0 and 8 <= side <= 64 for side in event[1:])
    if len(event) != 3 or not sides_fit:
        raise ValueError(
            "event_shape must be [channels, height, width] with sides that are multiples of 4 "
            f"from 8 to 64, got {list(event)}; MLPVAE takes any shape"
        )
    return event

"""Lowering: an MLP of PyTorch modules as plain tensors, which the fused ops take."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils import parametrize

from vaefast.models.activations import activation_name
from vaefast.models.encoders import DecodeMethod, GaussianEncoder
from vaefast.models.sigmoid import is_plain_sequential
from vaefast.models.vae import VAE
from vaefast.types import Network

__all__ = [
    "CannotLower",
    "Encoder",
    "decoder",
    "decoder_pixels",
    "encoder",
    "encoder_logvar",
    "encoder_mean",
    "lower",
    "pixels",
]


class CannotLower(Exception):
    """A module is no plain MLP; ``reason`` names the layer that stands in the way."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def lower(module: nn.Module) -> Network:
    """The MLP that a module computes on its flattened input.

    Takes nests of ``nn.Sequential`` of Linear layers, each followed by at most one activation:
    ReLU, LeakyReLU, ELU, Tanh, Sigmoid, Softplus, SiLU, GELU or MaxMin. Flatten, Unflatten,
    Identity and, in eval mode, dropout may stand between them. Clamps, as on a log-variance,
    normalisation, convolutions and forwards in Python code are not lowered.

    Returns:
        The parameters, detached and shared with the module, in their own dtype.

    Raises:
        CannotLower: with the reason, which names the layer.
    """
    return _lower([("", module)])


def encoder_mean(vae: VAE) -> Network:
    """x ↦ μ(x), flattened x. Raises :class:`CannotLower`."""
    encoder = _encoder(vae)
    parts = [("encoder.trunk", encoder.trunk), ("encoder.mean", encoder.mean)]
    return _of_events(_lower(parts), vae)


def encoder_logvar(vae: VAE) -> Network:
    """x ↦ log σ²(x), flattened x. Raises :class:`CannotLower`."""
    encoder = _encoder(vae)
    if isinstance(encoder.logvar, Tensor):
        raise CannotLower("encoder_logvar is a fixed tensor, not a network")
    parts = [("encoder.trunk", encoder.trunk), ("encoder.logvar", encoder.logvar)]
    return _of_events(_lower(parts), vae)


def decoder(vae: VAE, z: Tensor | None = None) -> Network:
    """z ↦ natural parameters: logits or the Gaussian's mean. Raises :class:`CannotLower`."""
    if isinstance(vae.decoder, DecodeMethod):
        raise CannotLower(
            "decode() is Python code; vaefast.VAE(encoder_mean=, encoder_logvar=, decoder=) "
            "from its nn.Sequential parts can be lowered"
        )
    net = _lower([("decoder", vae.decoder)])
    if vae.decoder_output != "probabilities":
        return net
    if _epilogue(net) != "sigmoid":
        raise CannotLower("the decoder's probabilities do not come from a final Sigmoid")
    return net.with_epilogue("identity")


def decoder_pixels(vae: VAE) -> Network:
    """z ↦ g(z), the reconstruction in pixel scale. Raises :class:`CannotLower`."""
    net = decoder(vae)
    if vae.likelihood == "gaussian":
        return net
    if _epilogue(net) != "identity":
        raise CannotLower(
            f"the decoder's logits come from {_epilogue(net)}: no room for a sigmoid epilogue"
        )
    return net.with_epilogue("sigmoid")


def _encoder(vae: VAE) -> GaussianEncoder:
    if isinstance(vae.encoder, GaussianEncoder):
        if _has_hooks(vae.encoder):
            raise CannotLower(f"{_label('encoder', vae.encoder)} has hooks on its forward")
        return vae.encoder
    raise CannotLower(
        "encode() is Python code; vaefast.VAE(encoder_mean=, encoder_logvar=, decoder=) "
        "from its nn.Sequential parts can be lowered"
    )


def _of_events(net: Network, vae: VAE) -> Network:
    """An encoder that takes whole events: a Linear without Flatten acts on their last axis."""
    event = vae.event_shape
    if event is not None and math.prod(event) != net.in_features:
        raise CannotLower(
            f"the first Linear takes {net.in_features} features, an input has {math.prod(event)}"
        )
    return net


def _epilogue(net: Network) -> str:
    return net.activations[-1]


def _lower(parts: list[tuple[str, nn.Module]]) -> Network:
    layers = _Layers()
    for name, part in parts:
        for path, layer in _leaves(name, part):
            layers.add(_label(path, layer), layer)
    return layers.net()


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _label(path: str, layer: nn.Module) -> str:
    name = type(layer).__name__
    return f"layer {path!r} ({name})" if path else name


def _leaves(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a nest of ``nn.Sequential``, in the order of evaluation."""
    if _has_hooks(module):
        raise CannotLower(f"{_label(path, module)} has hooks on its forward")
    if not is_plain_sequential(module):
        yield path, module
        return
    for name, child in module.named_children():
        yield from _leaves(f"{path}.{name}" if path else name, child)


class _Layers:
    """The layers so far; ``flat`` says whether the running value is [n, features]."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.biases: list[Tensor | None] = []
        self.activations: list[str] = []
        self.flat = True

    def net(self) -> Network:
        if not self.weights:
            raise CannotLower("there is no Linear layer")
        return Network.mlp(self.weights, self.biases, ",".join(self.activations))

    def add(self, label: str, layer: nn.Module) -> None:
        if isinstance(layer, nn.Identity):
            return
        if isinstance(layer, nn.Flatten | nn.Unflatten):
            self._reshape(label, layer)
        elif isinstance(layer, nn.modules.dropout._DropoutNd):
            if layer.training and layer.p > 0:
                raise CannotLower(f"{label} is in training mode; call model.eval()")
        elif isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward:
            self._linear(label, layer)
        else:
            self._activation(label, layer)

    def _reshape(self, label: str, layer: nn.Flatten | nn.Unflatten) -> None:
        if isinstance(layer, nn.Unflatten):
            if layer.dim not in (1, -1):
                raise CannotLower(f"{label} unflattens dimension {layer.dim}, not 1")
            self.flat = False
        elif (layer.start_dim, layer.end_dim) != (1, -1):
            raise CannotLower(f"{label} does not flatten all dimensions but the batch")
        else:
            self.flat = True

    def _linear(self, label: str, layer: nn.Linear) -> None:
        if not self.flat:
            raise CannotLower(f"{label} acts on the last axis of an unflattened tensor")
        if parametrize.is_parametrized(layer) and layer.training:
            raise CannotLower(f"{label} is parametrised and in training mode; call model.eval()")
        if self.weights and self.weights[-1].shape[0] != layer.weight.shape[1]:
            raise CannotLower(
                f"{label} takes {layer.weight.shape[1]} features, "
                f"the layer before gives {self.weights[-1].shape[0]}"
            )
        self.weights.append(layer.weight.detach())
        self.biases.append(None if layer.bias is None else layer.bias.detach())
        self.activations.append("identity")

    def _activation(self, label: str, layer: nn.Module) -> None:
        name = activation_name(layer)
        if name is None:
            raise CannotLower(f"{label} has no fused form")
        if not self.weights:
            raise CannotLower(f"{label} comes before the first Linear layer")
        if self.activations[-1] != "identity":
            raise CannotLower(f"{label} follows another activation, {self.activations[-1]}")
        if name == "maxmin":
            self._check_pairs(label)
        self.activations[-1] = name

    def _check_pairs(self, label: str) -> None:
        if not self.flat:
            raise CannotLower(f"{label} pairs along the last axis of an unflattened tensor")
        if self.weights[-1].shape[0] % 2:
            raise CannotLower(f"{label} pairs {self.weights[-1].shape[0]} features, an odd number")


class Encoder(NamedTuple):
    """The encoder's two maps, and why not where one of them is missing."""

    mean: Network | None
    logvar: Network | None
    why_not: str


def encoder(vae: VAE, x: Tensor) -> Encoder:
    """x ↦ μ(x) and x ↦ log σ²(x), for x like the example; no network for a fixed σ."""
    mean, reason = _tried(encoder_mean, vae)
    logvar, other = (None, "") if vae.fixed_std else _tried(encoder_logvar, vae)
    return Encoder(mean, logvar, reason or other)


def pixels(vae: VAE, z: Tensor) -> Network:
    """z ↦ g(z). Raises :class:`CannotLower`."""
    return decoder_pixels(vae)


def _tried(lower_it: Callable[[VAE], Network], vae: VAE) -> tuple[Network | None, str]:
    try:
        return lower_it(vae), ""
    except CannotLower as error:
        return None, error.reason

"""The maps of a VAE whose local geometry is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.geometry.products import Map, ModuleMap, NetworkMap
from vaefast.models import VAE, lowering
from vaefast.models.footprint import activation_bytes
from vaefast.models.packs import packs_of
from vaefast.runtime import backends
from vaefast.types import Network

__all__ = ["OF", "Maps"]

OF = ("encoder", "decoder", "reconstruction")


class Maps(NamedTuple):
    """The maps of one VAE on inputs of one event shape: lowered where they are MLPs.

    Args:
        vae: the VAE itself.
        mean: x ↦ μ(x).
        std: x ↦ σ(x), or None where σ does not depend on x.
        pixels: z ↦ g(z).
        reconstruction: x ↦ g(μ(x)).
    """

    vae: VAE
    mean: Map
    std: Map | None
    pixels: Map
    reconstruction: Map

    @classmethod
    def of(cls, vae: VAE, x: Tensor, precision: str = "ieee") -> Maps:
        """The maps on inputs like x [B, *event], ``precision`` as of :class:`NetworkMap`."""
        z = vae.encode(x[:1])[0].detach()
        mean, pixels = _lower(lowering.encoder_mean, vae, x), _lower(lowering.pixels, vae, z)
        std = None if vae.fixed_std else _lower(_std, vae, x)
        generic, how = _generic(vae, x), (packs_of(vae), precision)
        return cls(
            vae=vae,
            mean=NetworkMap(mean, "mean", *how) if mean else generic.mean,
            std=NetworkMap(std, "logvar", *how) if std else generic.std,
            pixels=NetworkMap(pixels, "decoder", *how) if pixels else generic.pixels,
            reconstruction=(
                NetworkMap(_chain(mean, pixels), "reconstruction", *how)
                if mean and pixels
                else generic.reconstruction
            ),
        )

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """μ(x) and σ(x), [b, d] each, for x [b, *event]; lowered parts by ``ops.net_forward``."""
        if isinstance(self.mean, ModuleMap) or isinstance(self.std, ModuleMap):
            return self.vae.posterior(x)
        mean = self.mean.value(x.flatten(1))
        if self.std is None:
            return mean, self.vae.posterior(x[:1])[1].expand_as(mean)
        return mean, self.std.value(x.flatten(1))

    def generic(self, of: str, std: bool = False) -> bool:
        """Whether the map ``of``, and with ``std`` also σ, is evaluated as a module somewhere."""
        parts = [self.mean, self.std if std else None, None if of == "encoder" else self.pixels]
        return any(isinstance(part, ModuleMap) for part in parts)

    def require_gradients(self, x: Tensor, of: str) -> None:
        """Refuse a model that cuts the autograd graph: its Jacobian would come out as 0.

        Raises:
            ValueError: a map that ``of`` is made of does not depend on its input through autograd.
        """
        first = x[:1].flatten(1)
        if of != "decoder":
            _require_gradient(self.mean, first, "encode")
        if of != "encoder":
            _require_gradient(self.pixels, self.mean.value(first), "decode")


def _require_gradient(part: Map, point: Tensor, name: str) -> None:
    if isinstance(part, ModuleMap) and not part.is_connected(point):
        raise ValueError(
            f"{name}() must depend on its input through autograd; "
            "remove torch.no_grad() and .detach() from it"
        )


def _generic(vae: VAE, x: Tensor) -> Maps:
    """The maps as the modules compute them, with what a row of them costs."""
    event, pixels = x.shape[1:], x.shape[1:].numel()
    z = vae.encode(x[:1])[0]
    encoding, decoding = activation_bytes(vae.encode, x, vae), activation_bytes(vae.g, z, vae)
    latents = z.shape[1]
    std = ModuleMap(lambda x: vae.posterior(x)[1], event, latents, encoding)
    return Maps(
        vae=vae,
        mean=ModuleMap(lambda x: vae.encode(x)[0], event, latents, encoding),
        std=None if vae.fixed_std else std,
        pixels=ModuleMap(vae.g, torch.Size([latents]), pixels, decoding),
        reconstruction=ModuleMap(vae.reconstruct, event, pixels, encoding + decoding),
    )


def _lower(
    lowering_of: Callable[[VAE, Tensor], Network], vae: VAE, example: Tensor
) -> Network | None:
    try:
        net = _at_least_float32(lowering_of(vae, example))
    except lowering.CannotLower:
        return None
    return net if backends.fused(net, net.weights[0]) else None


def _std(vae: VAE, x: Tensor) -> Network:
    """x ↦ exp(½ log σ²(x)) as one MLP."""
    logvar = lowering.encoder_logvar(vae, x)
    if logvar.activations[-1] != "identity":
        raise lowering.CannotLower("the log-variance ends in an activation")
    return logvar.with_epilogue("exp_half")


def _chain(first: Network, second: Network) -> Network:
    """second ∘ first."""
    return Network(
        [*first.weights, *second.weights],
        [*first.biases, *second.biases],
        [*first.layers, *second.layers],
    )


def _at_least_float32(net: Network) -> Network:
    """Half-precision weights as float32: Jacobian products square their entries."""
    if net.weights[0].element_size() >= 4:
        return net
    biases = [None if b is None else b.float() for b in net.biases]
    return Network([w.float() for w in net.weights], biases, net.layers)

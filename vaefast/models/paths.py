"""How a VAE's maps are evaluated: through ``ops.net_forward`` where they lower, else as modules.

Everything that is measured, attacked or sampled goes through here; only training calls the
modules themselves. Modules belong in :mod:`vaefast.runtime.batching`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor

from vaefast import ops
from vaefast.models import lowering
from vaefast.models.calls import as_event
from vaefast.models.packs import Packs, packs_of
from vaefast.models.vae import VAE
from vaefast.runtime import backends
from vaefast.types import Network

__all__ = ["Paths", "joined"]


class Paths(NamedTuple):
    """The maps of one VAE on inputs like those it was made for.

    Args:
        vae: the VAE.
        encoder: x ↦ (μ, log σ²) side by side or, with a fixed σ, x ↦ μ; None where only the module
            computes it.
        logvar: x ↦ log σ² where it shares nothing with μ.
        decoder: z ↦ natural parameters, or None.
        pixels: z ↦ g(z), or None.
        packs: of these networks.
    """

    vae: VAE
    encoder: Network | None
    logvar: Network | None
    decoder: Network | None
    pixels: Network | None
    packs: Packs

    @classmethod
    def of(cls, vae: VAE, x: Tensor) -> Paths:
        """The paths for x [B, *event]; one row of zeros tells the VAE the shape."""
        with torch.no_grad():
            z = vae.encode(x.new_zeros(1, *x.shape[1:]))[0]
        vae.check_first_batch(x)
        encoder, logvar = _encoder(vae, x)
        decoder, pixels = (_lowered(f, vae, z) for f in (lowering.decoder, lowering.pixels))
        return cls(vae, encoder, logvar, decoder, pixels, packs_of(vae))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [b, d] each, as ``vae.encode``; lowered ones differentiate once."""
        if self.encoder is None:
            return self.vae.encode(x)
        flat = x.flatten(1)
        if self.logvar is not None:
            return self._run("mean", self.encoder, flat), self._run("logvar", self.logvar, flat)
        heads = self._run("mean" if self.vae.fixed_std else "encoder", self.encoder, flat)
        if self.vae.fixed_std:
            logvar = cast(Tensor, self.vae.encoder.logvar)
            return heads, logvar.detach().to(x.dtype).expand_as(heads)
        mean, logvar = heads.chunk(2, dim=1)
        return mean, logvar

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x), [b, d] each."""
        mean, logvar = self.encode(x)
        return mean, torch.exp(0.5 * logvar)

    def decode(self, z: Tensor) -> Tensor:
        """Natural parameters [n, *event], as ``vae.decode``."""
        if self.decoder is None:
            return self.vae.decode(z)
        return as_event(self._run("decoder", self.decoder, z), len(z), self.vae.event_shape)

    def g(self, z: Tensor) -> Tensor:
        """The reconstruction in pixel scale [n, *event], as ``vae.g``."""
        if self.pixels is None:
            return self.vae.g(z)
        return as_event(self._run("decoder", self.pixels, z), len(z), self.vae.event_shape)

    def _run(self, name: str, net: Network, rows: Tensor) -> Tensor:
        backward = torch.is_grad_enabled() and rows.requires_grad
        return ops.net_forward(rows, self.packs.packed(name, net, backward=backward))

    def reconstruct(self, x: Tensor) -> Tensor:
        """g(μ(x)), as ``vae.reconstruct``."""
        return self.g(self.encode(x)[0])


def joined(first: Network, second: Network) -> Network | None:
    """Two networks that differ in their last layer's parameters only, as one with both outputs."""
    same = first.layers == second.layers and len(first.weights) == len(second.weights)
    before = [[*net.weights[:-1], *net.biases[:-1]] for net in (first, second)]
    if not same or not all(_is_same(a, b) for a, b in zip(*before)):
        return None
    biases = [_bias(m) for m in (first, second)]
    return Network(
        [*first.weights[:-1], torch.cat([first.weights[-1], second.weights[-1]])],
        [*first.biases[:-1], torch.cat(biases)],
        first.layers,
    )


def _is_same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape


def _bias(net: Network) -> Tensor:
    bias, weight = net.biases[-1], net.weights[-1]
    return weight.new_zeros(len(weight)) if bias is None else bias


def _encoder(vae: VAE, x: Tensor) -> tuple[Network | None, Network | None]:
    found = lowering.encoder(vae, x)
    mean, logvar = _fitting(found.mean, x), _fitting(found.logvar, x)
    if mean is None or vae.fixed_std:
        return mean, None
    if logvar is None:
        return None, None
    both = joined(mean, logvar) if mean.activations[-1] == "identity" else None
    return (mean, logvar) if both is None else (both, None)


def _lowered(lower: Callable[[VAE, Tensor], Network], vae: VAE, z: Tensor) -> Network | None:
    try:
        return _fitting(lower(vae, z), z)
    except lowering.CannotLower:
        return None


def _fitting(net: Network | None, x: Tensor) -> Network | None:
    """The network, where kernels take it and x as it is: half precision is rounded by the VAE."""
    if net is None or not backends.fused(net, x):
        return None
    first = next((w for w in net.weights if w.numel()), x)
    fits = first.dtype == x.dtype and first.device == x.device and first.element_size() >= 4
    return net if fits else None

"""How a VAE's maps are evaluated: through ``ops.mlp_forward`` where they lower, else as modules.

Everything that is measured, attacked or sampled goes through here; only training calls the
modules themselves. Modules belong in :mod:`vaefast.blocks`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor

from vaefast import ops
from vaefast.models import mlp as lowering
from vaefast.models.calls import as_event
from vaefast.models.packs import Packs, packs_of
from vaefast.models.vae import VAE
from vaefast.types import MLP

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
    encoder: MLP | None
    logvar: MLP | None
    decoder: MLP | None
    pixels: MLP | None
    packs: Packs

    @classmethod
    def of(cls, vae: VAE, x: Tensor) -> Paths:
        """The paths for x [B, *event]; one row of zeros tells the VAE the shape."""
        with torch.no_grad():
            vae.encode(x.new_zeros(1, *x.shape[1:]))
        encoder, logvar = _encoder(vae, x)
        decoder, pixels = (_fitting(f, vae, x) for f in (lowering.decoder, lowering.decoder_pixels))
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

    def _run(self, name: str, mlp: MLP, rows: Tensor) -> Tensor:
        backward = torch.is_grad_enabled() and rows.requires_grad
        return ops.mlp_forward(rows, self.packs.packed(name, mlp, backward=backward))

    def reconstruct(self, x: Tensor) -> Tensor:
        """g(μ(x)), as ``vae.reconstruct``."""
        return self.g(self.encode(x)[0])


def joined(first: MLP, second: MLP) -> MLP | None:
    """Two networks that differ in their last layer's parameters only, as one with both outputs."""
    same = first.activations == second.activations and len(first.weights) == len(second.weights)
    before = [[*mlp.weights[:-1], *mlp.biases[:-1]] for mlp in (first, second)]
    if not same or not all(_is_same(a, b) for a, b in zip(*before)):
        return None
    biases = [_bias(m) for m in (first, second)]
    return MLP(
        [*first.weights[:-1], torch.cat([first.weights[-1], second.weights[-1]])],
        [*first.biases[:-1], torch.cat(biases)],
        first.activations,
    )


def _is_same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape


def _bias(mlp: MLP) -> Tensor:
    bias, weight = mlp.biases[-1], mlp.weights[-1]
    return weight.new_zeros(len(weight)) if bias is None else bias


def _encoder(vae: VAE, x: Tensor) -> tuple[MLP | None, MLP | None]:
    mean = _fitting(lowering.encoder_mean, vae, x)
    if mean is None or vae.fixed_std:
        return mean, None
    logvar = _fitting(lowering.encoder_logvar, vae, x)
    if logvar is None:
        return None, None
    both = joined(mean, logvar) if mean.activations.endswith("identity") else None
    return (mean, logvar) if both is None else (both, None)


def _fitting(lower: Callable[[VAE], MLP], vae: VAE, x: Tensor) -> MLP | None:
    """The lowered network, where it takes x as it is: half precision is rounded by the VAE."""
    try:
        mlp = lower(vae)
    except lowering.CannotLower:
        return None
    first = mlp.weights[0]
    fits = first.dtype == x.dtype and first.device == x.device and first.element_size() >= 4
    return mlp if fits else None

"""encode and decode of rows like some that went through them, without the checks of these.

A leapfrog or a step of an attack costs little more than the modules; checks of shapes and dtypes
that cannot have changed since the first rows of a call would be a tenth of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vaefast import checks
from vaefast.models.calls import HALF, lone_rows
from vaefast.models.context import Context, as_keyword
from vaefast.models.likelihoods import LikelihoodAt, to_pixels
from vaefast.models.vae import VAE

__all__ = ["Again"]

ENCODING, DECODING = ("encode", "q", "posterior", "_moments"), ("decode", "g", "_decoded", "_heads")


class Again:
    """The maps of one VAE in one call.

    Args:
        vae: whose maps; a subclass with methods of its own runs those.
    """

    def __init__(self, vae: VAE) -> None:
        self._vae = vae
        self._encoder, self._decoder = _rounded(vae.encoder), _rounded(vae.decoder)
        self._encodes, self._decodes = _is_plain(vae, ENCODING), _is_plain(vae, DECODING)

    def of(self, vae: VAE) -> Again:
        """Those of a twin of the VAE."""
        other = object.__new__(Again)
        other.__dict__.update(vars(self), _vae=vae)
        return other

    def encode(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """As ``vae.encode``."""
        if not self._encodes:
            return self._vae.encode(x, **as_keyword(context))
        inputs = x if self._encoder is None else x.to(self._encoder)
        mean, logvar = lone_rows(self._vae._moments, inputs, context)
        return mean.flatten(1).to(x.dtype), logvar.flatten(1).to(x.dtype)

    def posterior(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """As ``vae.posterior``."""
        if not self._encodes:
            return self._vae.posterior(x, **as_keyword(context))
        mean, logvar = self.encode(x, context)
        return mean, torch.exp(0.5 * logvar)

    def decode(self, z: Tensor, context: Context) -> Tensor:
        """As ``vae.decode``, for z [n, d]."""
        if not self._decodes:
            return self._vae.decode(z, **as_keyword(context))
        inputs = z if self._decoder is None else z.to(self._decoder)
        shape = self._vae.latent_shape
        inputs = inputs if shape is None or len(shape) == 1 else self._vae.unflat(inputs)
        return lone_rows(self._vae._heads, inputs, context)[0].to(z.dtype)

    def g(self, z: Tensor, context: Context) -> Tensor:
        """As ``vae.g``."""
        if not self._decodes:
            return self._vae.g(z, **as_keyword(context))
        return to_pixels(self.decode(z, context), self._vae.likelihood)

    def likelihood_at(self, z: Tensor, context: Context) -> LikelihoodAt:
        """As ``vae.likelihood_at``."""
        return self._vae.likelihood_at(z, **as_keyword(context))

    def reconstruct(self, x: Tensor, context: Context) -> Tensor:
        """As ``vae.reconstruct``."""
        return self._vae.reconstruct(x, **as_keyword(context))


def _rounded(module: nn.Module) -> torch.dtype | None:
    """The dtype that inputs of a module in half precision are rounded to."""
    tensors: Any = (*checks.parameters(module), *module.buffers())
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), None)
    return dtype if dtype in HALF else None


def _is_plain(vae: VAE, names: tuple[str, ...]) -> bool:
    """Whether these methods are the VAE's own."""
    own = all(getattr(type(vae), name) is getattr(VAE, name) for name in names)
    return own and not any(name in vars(vae) for name in names)

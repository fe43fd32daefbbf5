"""What the maps of one call share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from vaefast.models import context as contexts
from vaefast.models.example import Example
from vaefast.models.footprint import known_bytes
from vaefast.models.forms import Forms
from vaefast.models.one_function import of_decode, of_encode
from vaefast.models.packs import Packs
from vaefast.models.vae import VAE

__all__ = ["Shared"]


class Shared(NamedTuple):
    """What a call's maps share with those of some of its rows."""

    vae: VAE
    example: Example
    precision: str
    backend: str | None
    packs: Packs
    costs: dict[str, int]  # measured bytes per row
    functions: set[str]  # "encoder" and "decoder", once known to be functions of their rows
    forms: Forms  # of the modules

    def require_function(self, part: str) -> None:
        """A module whose rows would be random, or depend on each other, measures nothing."""
        example = self.example
        if part in self.functions:
            return
        self.functions.add(part)
        found = (
            of_encode(self.vae, example.x, example.context, example.moments)
            if part == "encoder"
            else of_decode(self.vae, example.latents(self.vae), example.context)
        )
        if found:
            raise RuntimeError(found)

    def encoder_bytes(self) -> int:
        """Of one row of the encoder and its backward pass, measured once per call."""
        return self._measured("encoder", self.vae.encode, self.example.x)

    def decoder_bytes(self) -> int:
        """As :meth:`encoder_bytes`, of the decoder."""
        return self._measured("decoder", self.vae.g, self.example.z)

    def _measured(self, name: str, function: Callable[..., object], rows: Tensor) -> int:
        if name not in self.costs:
            given = contexts.as_keyword(contexts.rows(self.example.context, slice(0, 1)))
            run = partial(function, **given)
            owner, output = getattr(self.vae, name), self.vae.decoder_output
            self.costs[name] = known_bytes(run, rows, self.vae, owner, (name, output))
        return self.costs[name]

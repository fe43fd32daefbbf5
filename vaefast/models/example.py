"""By which rows a VAE's maps are recognised, and what the maps of one call share."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vaefast.models.context import Context
from vaefast.models.known import Known
from vaefast.models.one_function import of_decode, of_encode
from vaefast.models.packs import Packs
from vaefast.models.vae import VAE
from vaefast.types import Network

__all__ = ["Example", "Shared", "first_two"]


class Example(NamedTuple):
    """Two rows like those of a call, by which a VAE's maps are recognised.

    Args:
        like: [n, *event]; those two, or the call's own where the networks are ``known``.
        z: [2, d], their posterior means; zeros where the networks are known.
        context: theirs, or None.
        moments: their means and log-variances, or nothing.
        known: the networks that are known without a look at the rows.
    """

    like: Tensor
    z: Tensor
    context: Context
    moments: tuple[Tensor, ...] = ()
    known: Known | None = None

    @property
    def x(self) -> Tensor:
        """The two rows [2, *event], finite."""
        return self.like if self.known is None else first_two(self.like)


class Shared(NamedTuple):
    """What a call's maps share with those of some of its rows."""

    vae: VAE
    example: Example
    precision: str
    backend: str | None
    packs: Packs
    costs: dict[str, int]  # measured bytes per row
    functions: set[str]  # "encoder" and "decoder", once known to be functions of their rows

    def known_decoder(self) -> Network | None:
        """z ↦ natural parameters, where that is known without lowering."""
        known = self.example.known
        return None if known is None else known.decoder(self.vae, self.example.z)

    def latents(self) -> Tensor:
        """Posterior means [2, d] of the example's rows."""
        example = self.example
        return example.z if example.known is None else self.vae.encode(example.x)[0]

    def require_function(self, part: str) -> None:
        """Refuse an encoder or decoder whose rows are random, or depend on each other.

        Raises RuntimeError: it measures nothing.
        """
        if part in self.functions:
            return
        self.functions.add(part)
        context = self.example.context
        found = (
            of_encode(self.vae, self.example.x, context)
            if part == "encoder"
            else of_decode(self.vae, self.latents(), context)
        )
        if found:
            raise RuntimeError(found)


def first_two(t: Tensor) -> Tensor:
    """The first two rows [2, ...] without NaN and infinity, zeros where there are none."""
    two = t.new_zeros(2, *t.shape[1:])
    two[: len(t)] = t[:2]
    return two.nan_to_num_(0.0, 0.0, 0.0) if t.is_floating_point() else two

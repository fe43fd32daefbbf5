"""By which rows a VAE's maps are recognised."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vaefast.models.context import Context
from vaefast.models.known import Known
from vaefast.models.vae import VAE
from vaefast.types import Network

__all__ = ["Example", "first_two"]


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

    def latents(self, vae: VAE) -> Tensor:
        """z, or what ``vae`` makes of x where that was not worth a look."""
        return self.z if self.known is None else vae.encode(self.x)[0]

    def decoder(self, vae: VAE) -> Network | None:
        """z ↦ natural parameters, where that is known without lowering."""
        return None if self.known is None else self.known.decoder(vae, self.z)


def first_two(t: Tensor) -> Tensor:
    """The first two rows [2, ...] without NaN and infinity, zeros where there are none."""
    two = t.new_zeros(2, *t.shape[1:])
    two[: len(t)] = t[:2]
    return two.nan_to_num_(0.0, 0.0, 0.0) if t.is_floating_point() else two

"""By which rows a VAE's maps are recognised."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vaefast.models import lowering
from vaefast.models.context import Context
from vaefast.models.vae import VAE

__all__ = ["Example"]


class Example(NamedTuple):
    """Two rows like those of a call, by which a VAE's maps are recognised.

    Args:
        x: [2, *event], finite.
        z: [2, d], their posterior means; zeros where ``encoder`` is given.
        context: theirs, or None.
        moments: their means and log-variances, or nothing.
        encoder: where it is known without a look at the rows.
    """

    x: Tensor
    z: Tensor
    context: Context
    moments: tuple[Tensor, ...] = ()
    encoder: lowering.Encoder | None = None

    def latents(self, vae: VAE) -> Tensor:
        """z, or what ``vae`` makes of x where that was not worth a look."""
        return self.z if self.encoder is None else vae.encode(self.x)[0]

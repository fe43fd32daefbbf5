"""By which rows a VAE's maps are recognised, and what the maps of one call share."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vaefast.models import lowering
from vaefast.models.context import Context
from vaefast.models.packs import Packs
from vaefast.models.vae import VAE

__all__ = ["Example", "Shared"]


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


class Shared(NamedTuple):
    """What a call's maps share with those of some of its rows."""

    vae: VAE
    example: Example
    precision: str
    backend: str | None
    packs: Packs
    costs: dict[str, int]  # measured bytes per row
    functions: set[str]  # "encoder" and "decoder", once known to be functions of their rows

"""What the maps of one call share."""

from __future__ import annotations

from typing import NamedTuple

from vaefast.models.example import Example
from vaefast.models.forms import Forms
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

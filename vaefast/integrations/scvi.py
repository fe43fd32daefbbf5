"""scvi-tools' SCVI module: a library size and a batch per cell, as ``context=``.

``inference(x=, batch_index=)`` has ``qz``, a Normal; ``generative(z=, library=, batch_index=)`` has
``px``, a count distribution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vaefast.models import results
from vaefast.models.adapters import Adapter, is_from
from vaefast.models.context import Context
from vaefast.models.vae import VAE
from vaefast.models.wrapping import ModuleVAE

__all__ = ["ADAPTER"]

CONTEXT = 'context={"batch_index": [B, 1] int64, "library": [B, 1], log of the size}'


class CellEncoder(nn.Module):
    """Counts x [n, genes] to the moments of q(z|x); ``batch_index`` is 0 without a context."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module: Any = module

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        named = context if isinstance(context, dict) else {}
        batch = named.get("batch_index", torch.zeros(len(x), 1, dtype=torch.long, device=x.device))
        return results.moments(self.module.inference(x=x, batch_index=batch)["qz"])


class CellDecoder(nn.Module):
    """Latents z [n, d] to the mean count of every gene, [n, genes]."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module: Any = module

    def forward(self, z: Tensor, context: Context = None) -> Tensor:
        if not isinstance(context, dict) or {"batch_index", "library"} - set(context):
            raise ValueError(
                f"SCVI decodes with the batch and the size of each cell; pass {CONTEXT}"
            )
        named = {name: context[name] for name in ("batch_index", "library")}
        return self.module.generative(z=z, **named)["px"].mean


def wrap(module: Any, options: dict[str, Any]) -> VAE:
    """SCVI's module as a VAE: its encoder side, and the mean counts under a Gaussian.

    Raises:
        ValueError: no likelihood is named; that of counts is not there yet.
    """
    if options.get("likelihood") != "gaussian":
        raise ValueError(
            "likelihood must be 'gaussian' for SCVI today: its negative binomial comes with the "
            "sampler; the encoder's side (attacks.latent, certify) does not read it"
        )
    return ModuleVAE(CellEncoder(module), CellDecoder(module), **options)


def _fits(module: nn.Module) -> bool:
    parts = all(callable(getattr(module, name, None)) for name in ("inference", "generative"))
    return parts and is_from(module, "scvi", "VAE")


ADAPTER = Adapter("scvi", _fits, wrap)

"""scvi-tools' SCVI module: a library size and a batch per cell, as ``context=``.

Counts under its negative binomial (``gene_likelihood="nb"``), whose dispersion may depend on z, or
the mean counts under a Gaussian where that is asked for.

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
    """Latents z [n, d] to the mean count of every gene, [n, genes], and where ``counts`` its θ."""

    def __init__(self, module: nn.Module, *, counts: bool = False) -> None:
        super().__init__()
        self.module: Any = module
        self.counts = counts

    def forward(self, z: Tensor, context: Context = None) -> Any:
        if not isinstance(context, dict) or {"batch_index", "library"} - set(context):
            raise ValueError(
                f"SCVI decodes with the batch and the size of each cell; pass {CONTEXT}"
            )
        named = {name: context[name] for name in ("batch_index", "library")}
        px = self.module.generative(z=z, **named)["px"]
        if not self.counts:
            return px.mean
        mean, theta = getattr(px, "mu", None), getattr(px, "theta", None)
        if mean is None or theta is None or getattr(px, "zi_logits", None) is not None:
            raise ValueError(
                f"px must be a negative binomial with mu and theta, got {type(px).__name__}; "
                'pass likelihood="gaussian" for its mean'
            )
        return mean, theta.expand_as(mean)


def wrap(module: Any, options: dict[str, Any]) -> VAE:
    """SCVI's module as a VAE: counts under its negative binomial, or means under a Gaussian.

    Raises:
        ValueError: another likelihood, such as the zero-inflated one, which has none here.
    """
    own = getattr(module, "gene_likelihood", None)
    likelihood = options.get("likelihood", "negative_binomial" if own == "nb" else None)
    if likelihood == "negative_binomial" and own in ("nb", None):
        given = {"decoder_output": "mean_dispersion"} | options | {"likelihood": likelihood}
        return ModuleVAE(CellEncoder(module), CellDecoder(module, counts=True), **given)
    if likelihood != "gaussian":
        raise ValueError(
            f"likelihood must be 'gaussian' for SCVI with gene_likelihood {own!r}, or "
            "'negative_binomial' with \"nb\"; the encoder's side (attacks.latent, certify) reads "
            "none"
        )
    return ModuleVAE(CellEncoder(module), CellDecoder(module), **options)


def _fits(module: nn.Module) -> bool:
    parts = all(callable(getattr(module, name, None)) for name in ("inference", "generative"))
    return parts and is_from(module, "scvi", "VAE")


ADAPTER = Adapter("scvi", _fits, wrap)

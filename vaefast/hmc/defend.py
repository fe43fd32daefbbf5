"""The defence: reconstruct from the true posterior instead of the encoder's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaefast.hmc.health import say
from vaefast.hmc.options import with_unit_mass
from vaefast.hmc.promotion import promoted
from vaefast.hmc.result import Defence
from vaefast.hmc.sample import complete
from vaefast.hmc.sampler import sampled
from vaefast.models.context import Context
from vaefast.models.prepare import Prepared, prepare
from vaefast.models.vae import VAE
from vaefast.runtime.distributions import unchecked
from vaefast.runtime.grad_mode import own_modes

__all__ = ["defend"]


def defend(
    vae: VAE,
    x: Tensor,
    *,
    keep: str | int = "last",
    context: Context = None,
    **options: Any,
) -> Defence:
    """Replace q(z|x) by chains on p(z|x): their last states z_T and reconstructions g(z_T).

    Args:
        vae: the model.
        x: [B, *event], possibly attacked.
        keep: as in :func:`sample`; the last state is what is decoded.
        context: conditions of each input, [B, ...] or a dict of such tensors.
        options: all other options of :func:`sample`; ``schedule="kuzina2022"`` is the published
            defence. The default ``mass`` is "unit", which an adaptive attack can differentiate.

    Returns:
        :class:`Defence`: z [B, C, *latent_shape] and reconstruction [B, C, *event] in pixel scale;
        both NaN in failed rows.

    Raises:
        As :func:`sample`.

    Source: Kuzina, Welling, Tomczak, "Alleviating adversarial attacks on variational autoencoders
    with MCMC", NeurIPS 2022.
    """
    index, backend = options.get("index"), options.get("backend")
    options = with_unit_mass(options)
    with own_modes(), unchecked():
        vae, x, context = promoted(vae, x, context, options.get("precision", "ieee"))
        prepared = prepare(vae, x, index, context=context, backend=backend)
        result = sampled(prepared, **complete(keep=keep, **options))
        z = result.z[:, :, -1]  # [B, C, *latent_shape]
        failed = result.failed
        usable = z.masked_fill(_beside(failed, z), 0.0)  # no NaN for the decoder
        images = _decoded(prepared, usable.flatten(2))
    say("hmc.defend", result.failed, result.reasons, result.z.dtype)
    return Defence(z, images.masked_fill(_beside(failed, images), torch.nan), result)


def _decoded(prepared: Prepared, z: Tensor) -> Tensor:
    """g(z) in x's dtype, [B, C, *event] for z [B, C, d]."""
    chains, x = z.shape[1], prepared.x

    def run(part: Prepared) -> tuple[Tensor, ...]:
        images = part.maps.g(z[part.gather].flatten(0, 1))
        return (images.to(x.dtype).view(-1, chains, *x.shape[1:]),)

    pixels = prepared.maps.pixels
    cost = chains * pixels.bytes_per_row(z.element_size())
    (images,) = prepared.rows(run, cost, width=chains, generic=pixels.lowered is None)
    return images


def _beside(failed: Tensor, values: Tensor) -> Tensor:
    """[B] as it broadcasts with [B, ...]."""
    return failed.view(-1, *[1] * (values.ndim - 1))

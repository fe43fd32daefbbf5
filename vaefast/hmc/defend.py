"""The defence: reconstruct from the true posterior instead of the encoder's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaefast import checks
from vaefast.hmc.result import Defence
from vaefast.hmc.sample import sample
from vaefast.models.footprint import activation_bytes
from vaefast.models.packs import one_pack
from vaefast.models.paths import Paths
from vaefast.models.vae import VAE
from vaefast.runtime import batching
from vaefast.runtime.batching import Rows

__all__ = ["defend"]


@one_pack
def defend(vae: VAE, x: Tensor, *, keep: str | int = "last", **options: Any) -> Defence:
    """Replace q(z|x) by chains on p(z|x): their last states z_T and reconstructions g(z_T).

    Args:
        vae: the model.
        x: [B, *event], possibly attacked.
        keep: as in :func:`sample`; the last state is what is decoded.
        options: all other options of :func:`sample`; ``schedule="kuzina2022"`` is the published
            defence.

    Returns:
        :class:`Defence`: z [B, C, d] and reconstruction [B, C, *event] in pixel scale; both NaN in
        failed rows.

    Raises:
        As :func:`sample`.

    Source: Kuzina, Welling, Tomczak, "Alleviating adversarial attacks on variational autoencoders
    with MCMC", NeurIPS 2022.
    """
    result = sample(vae, x, keep=keep, **options)
    z = result.z[:, :, -1]  # [B, C, d]
    with torch.inference_mode(False), torch.no_grad():
        usable = z.masked_fill(result.failed[:, None, None], 0.0)  # no NaN for the decoder
        images = _decoded(vae, usable, x, options.get("index"))
    failed = result.failed.view(-1, *[1] * (images.ndim - 1))
    return Defence(z, images.masked_fill(failed, torch.nan), result)


def _decoded(vae: VAE, z: Tensor, x: Tensor, index: Tensor | None) -> Tensor:
    """g(z) in x's dtype, [B, C, *event] for z [B, C, d]."""
    paths, shape = Paths.of(vae, x), (z.shape[1], *x.shape[1:])
    per_row = z.shape[1] * activation_bytes(vae.decode, z[:, 0], vae)

    def run(rows: Rows) -> tuple[Tensor, ...]:
        return (paths.g(z[rows].flatten(0, 1)).to(x.dtype).view(-1, *shape),)

    numbers = checks.row_index(index, len(x), x.device)
    (images,) = batching.evaluate(
        run, numbers, per_row, generic=paths.pixels is None, width=z.shape[1]
    )
    return images

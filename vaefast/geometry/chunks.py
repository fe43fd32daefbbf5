"""How every function of the package works through its rows, and the checks that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast import checks
from vaefast.elbo import check_vae
from vaefast.functional.rows import finite, nan_where_bad
from vaefast.geometry.maps import OF, Maps
from vaefast.models import VAE
from vaefast.runtime import batching
from vaefast.runtime.batching import Rows

__all__ = ["Points", "check", "evaluate", "usable"]

DOUBLES = 128  # bytes per entry of a product or probe: int64 and float64 copies


@dataclass(frozen=True)
class Points:
    """Some rows of a batch.

    Args:
        maps: the maps of the VAE.
        x: [b, D], at least float32.
        inv_std: [b, d], 1/σ(x) where whitened, else None.
        index: [b] int64, global numbers of the rows.
    """

    maps: Maps
    x: Tensor
    inv_std: Tensor | None
    index: Tensor


def check(vae: VAE, x: Tensor, of: str, whiten: bool = False) -> None:
    """The checks that every function of this package makes.

    Raises:
        TypeError: ``vae`` is no VAE, ``x`` is not a floating tensor.
        ValueError: ``x`` is not [B, *event], unknown ``of``, ``whiten`` without the encoder.
        RuntimeError: the model is in training mode.
    """
    check_vae(vae)
    checks.batch(x)
    checks.option(of, "of", OF)
    if whiten and of != "encoder":
        raise ValueError(
            f'whiten=True divides by the encoder\'s std: it needs of="encoder", got of="{of}"'
        )
    checks.eval_mode(vae)


def usable(x: Tensor) -> Tensor:
    """x apart from the caller's graph, usable by autograd, in float32 where it was half."""
    x = x.clone() if x.is_inference() else x.detach()
    return x.float() if x.element_size() < 4 else x


@torch.inference_mode(False)
@torch.no_grad()
def evaluate(
    vae: VAE,
    x: Tensor,
    of: str,
    function: Callable[[Points], tuple[Tensor, ...]],
    *,
    probes: int | None = None,
    whiten: bool = False,
    index: Tensor | None = None,
    precision: str = "ieee",
) -> tuple[Tensor, ...]:
    """``function`` over chunks of the rows, its results joined; NaN where x is not finite.

    Args:
        of: the map that ``function`` looks at.
        probes: products with the Jacobian per row, by default one per latent.
        whiten: give ``function`` 1/σ(x).
        index: [B] int64, global numbers of the rows.
        precision: the lowest for the Jacobian's products, as of :class:`NetworkMap`.
    """
    x = usable(x)
    index = checks.row_index(index, len(x), x.device)
    maps = Maps.of(vae, x, precision)
    maps.require_gradients(x, of)

    def run(rows: Rows) -> tuple[Tensor, ...]:
        inv_std = 1.0 / maps.posterior(x[rows])[1] if whiten else None
        flat = x[rows].flatten(1)
        results = function(Points(maps, flat, inv_std, index[rows]))
        return nan_where_bad(finite(flat, inv_std), *results)

    count = maps.mean.outputs if probes is None else probes
    cost = _bytes_per_row(maps, x.shape[1:].numel(), count, x.element_size())
    return batching.evaluate(run, index, cost, generic=maps.generic(of, std=True), width=count)


def _bytes_per_row(maps: Maps, pixels: int, probes: int, itemsize: int) -> int:
    passes = [m.bytes_per_row(pixels, probes, itemsize) for m in (maps.mean, maps.pixels)]
    return sum(passes) + DOUBLES * probes * pixels

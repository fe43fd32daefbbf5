"""How every function of the package works through its rows, and the checks that they share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast import checks
from vaefast.functional.rows import finite, nan_where_bad
from vaefast.models.maps import Map, Maps
from vaefast.models.prepare import Prepared
from vaefast.models.products import ModuleMap
from vaefast.runtime import numerics
from vaefast.runtime.reasons import listed, marked

__all__ = [
    "METRICS",
    "OF",
    "Points",
    "check_map",
    "evaluate",
    "is_generic",
    "mean_and_std",
    "zeros_said",
]

OF = ("encoder", "decoder", "reconstruction")
DECODES = ("decoder", "reconstruction")
METRICS = (*OF, "fisher")  # of these and of the posterior q(z|x)
DOUBLES = 128  # bytes per entry of a product or probe: int64 and float64 copies


@dataclass(frozen=True)
class Points:
    """Some rows of a batch.

    Args:
        maps: the maps of the VAE.
        x: [b, D], at least float32.
        inv_std: [b, d], 1/σ(x) where whitened, else None.
        index: [b] int64, global indices of the rows.
    """

    maps: Maps
    x: Tensor
    inv_std: Tensor | None
    index: Tensor


def check_map(of: str, whiten: bool = False, known: tuple[str, ...] = OF) -> None:
    """The map that is asked for exists.

    Raises:
        ValueError: unknown ``of``, ``whiten`` without the encoder.
    """
    checks.option(of, "of", known)
    if whiten and of != "encoder":
        raise ValueError(
            f'whiten=True divides by the encoder\'s std: it needs of="encoder", got of="{of}"'
        )


def evaluate(
    prepared: Prepared,
    of: str,
    function: Callable[[Points], tuple[Tensor, ...]],
    *,
    probes: int | None = None,
    whiten: bool = False,
    std: bool = False,
    extra: int = 0,
) -> tuple[Tensor, ...]:
    """``function`` over all rows, its results joined; NaN where x is not finite.

    Args:
        of: the map that ``function`` measures.
        probes: products with the Jacobian per row, by default one per latent.
        whiten: give ``function`` 1/σ(x).
        std: it also measures σ(x).
        extra: further bytes that a row takes.
    """
    _require_gradients(prepared, of, std)

    def run(part: Prepared) -> tuple[Tensor, ...]:
        inv_std = 1.0 / mean_and_std(part.maps, part.x)[1] if whiten else None
        flat = part.x.flatten(1)
        results = function(Points(part.maps, flat, inv_std, part.index))
        return nan_where_bad(finite(flat, inv_std), *results)

    count = prepared.maps.latents if probes is None else probes
    cost = _bytes_per_row(prepared, of, count) + extra
    with numerics.products(prepared.x.device, "ieee"):  # cuDNN rounds to tf32 unless told not to
        return prepared.rows(run, cost, count, generic=is_generic(prepared.maps, of))


def zeros_said(norm: Tensor, of: str, stacklevel: int = 5) -> Tensor:
    """``norm`` [B], after one warning where it is 0: a map that rounds moves all the same."""
    zero = norm == 0
    if bool(zero.any()):
        rows = marked(zero)
        warnings.warn(
            f"the Jacobian of the {of} is 0 in {len(rows)} of {len(norm)} inputs ({listed(rows)}); "
            "first order says nothing there (a layer that rounds, or units that are all off?)",
            stacklevel=stacklevel,
        )
    return norm


def is_generic(maps: Maps, of: str) -> bool:
    """Whether the map ``of``, or σ, is evaluated as a module somewhere."""
    return maps.generic("mean", "std", *(("pixels",) if of in DECODES else ()))


def mean_and_std(maps: Maps, x: Tensor) -> tuple[Tensor, Tensor]:
    """μ(x) and σ(x), [b, d] each, for x [b, *event]."""
    if maps.generic("mean", "std"):
        return maps.posterior_by_module(x)
    return maps.posterior(x)


def _bytes_per_row(prepared: Prepared, of: str, probes: int) -> int:
    maps = prepared.maps
    parts = [maps.mean, maps.pixels] if of in DECODES else [maps.mean]
    passes = [part.bytes_per_row(prepared.itemsize, probes) for part in parts]
    return sum(passes) + DOUBLES * probes * prepared.pixels


def _require_gradients(prepared: Prepared, of: str, std: bool) -> None:
    """Refuse a model that cuts the autograd graph: its Jacobian would come out as 0.

    Raises:
        ValueError: a map that ``of`` is made of does not depend on its input through autograd, or
            an operation in it has no derivative.
    """
    if not is_generic(prepared.maps, of):
        return
    part = prepared.at(slice(0, 1))
    first = part.x.flatten(1)
    if of != "decoder":
        _require_gradient(part.maps.mean, first, "encode()")
    if of in DECODES:
        _require_gradient(part.maps.pixels, part.maps.mean.value(first), "decode()")
    if std and part.maps.std is not None and _moves(part.maps.std, first):
        _require_gradient(part.maps.std, first, "the log-variance of encode()")


def _require_gradient(part: Map, point: Tensor, name: str) -> None:
    if isinstance(part, ModuleMap) and (trouble := part.obstacle(point)):
        raise ValueError(f"{name} {trouble}")


def _moves(part: Map, point: Tensor) -> bool:
    """Whether a map is another value elsewhere; one that is not may well be a constant."""
    return isinstance(part, ModuleMap) and not torch.equal(
        part.value(point), part.value(0.5 * point + 0.25)
    )

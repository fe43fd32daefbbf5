"""What every public function on a VAE and its inputs does first, and how it works through rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast import checks
from vaefast.models import context as contexts
from vaefast.models.calls import HALF, images
from vaefast.models.context import Context
from vaefast.models.example import Example, first_two
from vaefast.models.groups import Hierarchical
from vaefast.models.known import known
from vaefast.models.maps import Maps
from vaefast.models.packs import Packs, is_frozen
from vaefast.models.shapes import require_event
from vaefast.models.vae import VAE
from vaefast.ops._inputs import check_precision
from vaefast.runtime import batching
from vaefast.runtime.batching import PaddedBatch, Rows

__all__ = ["Prepared", "check_vae", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A VAE's maps and the rows [B] of a call, or some of these rows.

    Args:
        maps: the maps of the VAE, with the rows' context.
        x: [B, *event], out of the caller's graph and usable by autograd.
        index: [B] int64, global indices of the rows.
        gather: which rows of the call these are; cuts the caller's own tensors alike.
        dtype: of the caller's x.
    """

    maps: Maps
    x: Tensor
    index: Tensor
    gather: Rows
    dtype: torch.dtype

    @property
    def vae(self) -> VAE:
        return self.maps.vae

    @property
    def context(self) -> Context:
        return self.maps.context

    @property
    def packs(self) -> Packs:
        return self.maps.packs

    @property
    def generic(self) -> bool:
        """Whether the encoder or the decoder is evaluated as a module."""
        return self.maps.generic("encoder", "decoder", "pixels")

    @property
    def pixels(self) -> int:
        """D, entries of one input."""
        return self.x.shape[1:].numel()

    @property
    def itemsize(self) -> int:
        """Bytes of an entry of x."""
        return self.x.element_size()

    def at(self, rows: Rows) -> Prepared:
        """Some of the rows."""
        if _is_all(rows, len(self.x)) and _is_all(self.gather, len(self.x)):
            return self
        x = self.x[rows]
        return Prepared(self.maps.at(rows, len(x)), x, self.index[rows], rows, self.dtype)

    def rows(
        self,
        function: Callable[[Prepared], tuple[Tensor, ...]],
        bytes_per_row: int,
        width: int = 1,
        *,
        generic: bool | None = None,
    ) -> tuple[Tensor, ...]:
        """``function`` over all rows, batch by batch, its results [n, ...] put together.

        Args:
            function: of some of the rows, in their order or padded with copies.
            bytes_per_row: what one row takes.
            width: rows that the model sees for each of these (chains, restarts, samples).
            generic: whether the function evaluates a module, so that rows may need positions of
                their own (:mod:`vaefast.runtime.batching`); by default where encoder or decoder is.
        """
        generic = self.generic if generic is None else generic
        return batching.evaluate(
            lambda rows: function(self.at(rows)),
            self.index,
            bytes_per_row,
            generic=generic,
            width=width,
        )

    def batches(self, bytes_per_row: int, width: int, generic: bool) -> Iterator[PaddedBatch]:
        """The rows cut and padded as in :meth:`rows`, for results that are written in place."""
        return batching.row_blocks(self.index, bytes_per_row, generic=generic, width=width)


def prepare(
    vae: VAE,
    x: Tensor,
    index: Tensor | None = None,
    *,
    context: Context = None,
    precision: str = "ieee",
    backend: str | None = None,
    half: str = "keep",
    trusted: bool = False,
) -> Prepared:
    """Check the arguments that all public functions share, and recognise the VAE's maps, once.

    To be called without grad mode and outside of inference mode.

    Args:
        vae: in eval mode.
        x: [B, *event] floating.
        index: [B] int64, global indices of the rows; default ``arange(B)``.
        context: per-row conditions [B, ...], or a dict of such tensors, for a VAE that takes them.
        precision: the lowest for products with the maps' Jacobians.
        backend: as it will be given to the ops.
        half: what becomes of x in half precision: "keep", "widen" (to float32) or "refuse" (that,
            and a model in half precision).
        trusted: whether modules need not show that they are functions of their rows.

    Raises:
        TypeError: ``vae`` is no VAE, or a wrong dtype.
        ValueError: a wrong shape or device.
        RuntimeError: a layer that varies in training mode is in it; and, where a module's map is
            first used, the module is random or gives a row another result beside another row.
    """
    check_vae(vae)
    require_event(images(x), vae.event_shape if vae._event_is_fixed else None)
    checks.eval_mode(vae)
    check_precision(precision)
    if half == "refuse":
        _refuse_half(vae, x)
    index = checks.row_index(index, len(x), x.device)
    contexts.check(context, len(x), x)
    dtype, x = x.dtype, x.clone() if x.is_inference() else x.detach()
    x = x.float() if half == "widen" and x.element_size() < 4 else x
    example = _example(vae, x, context)
    maps = Maps.of(
        vae,
        example,
        context,
        len(x),
        precision=precision,
        backend=backend,
        trusted=trusted or is_frozen(vae),
    )
    return Prepared(maps, x, index, slice(None), dtype)


def check_vae(vae: object) -> VAE:
    """Refuse anything but a VAE, with the way out."""
    if isinstance(vae, Hierarchical):
        raise TypeError(
            f"vae must have one Gaussian posterior, {type(vae).__name__} has groups of latents; "
            "take hmc.sample_groups, hmc.defend_groups or attacks.latent_groups"
        )
    if not isinstance(vae, VAE):
        raise TypeError(
            f"vae must be a vaefast.VAE, got {type(vae).__name__}; wrap it with vaefast.as_vae"
        )
    return vae


def _is_all(rows: Rows, count: int) -> bool:
    return isinstance(rows, slice) and rows in (slice(None), slice(0, count))


def _refuse_half(vae: VAE, x: Tensor) -> None:
    dtypes = {t.dtype for t in (x, *checks.parameters(vae))}
    if not dtypes & {*HALF}:
        return
    for name, t in [("x", x), *vae.named_parameters()]:
        if t.dtype in HALF:
            raise TypeError(
                f"{name} must be float32 or float64 for a margin, got {checks.short(t.dtype)}; "
                f"pass {'x.float()' if name == 'x' else 'vae.float()'}"
            )


def _example(vae: VAE, x: Tensor, context: Context) -> Example:
    """The first two rows, or zeros where there are none, and what the encoder makes of them.

    It runs unless it is known: then it would change nothing and refuse nothing.
    """
    if context is None and (networks := known(vae, x)) is not None:
        return Example(x, x.new_zeros(2, vae.latent_dim or 0), None, (), networks)
    two, conditions = first_two(x), _two_of(context)
    moments = vae.encode(two, **contexts.as_keyword(conditions))
    vae.check_first_batch(x, context, moments)
    return Example(two, moments[0], conditions, moments)


def _two_of(context: Context) -> Context:
    if isinstance(context, dict):
        return {name: first_two(t) for name, t in context.items()}
    return None if context is None else first_two(context)

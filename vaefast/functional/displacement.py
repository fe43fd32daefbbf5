"""Bounds of how far a network's output moves while its input stays in an ℓ₂ ball."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from vaefast.functional import multipliers, network
from vaefast.functional.displacement_intervals import Intervals, intervals, slack
from vaefast.functional.displacement_kernel import INFLATION, Affine, Kernel
from vaefast.functional.displacement_walk import Walk
from vaefast.functional.eigenvalues import eigenvalue
from vaefast.functional.remainder import COLUMNS, remainder
from vaefast.functional.rows import finite, nan_where_bad
from vaefast.runtime import matrices, memory, threads
from vaefast.types import Network

__all__ = ["FORMS", "Displacement", "displacement_ellipsoid", "why_affine"]

FORMS = ("affine", "multiplier", "smaller", "joint")
AT_ONCE = 16  # rows whose matrices stay in the processor's caches
GRAMS = 4096  # features of a convolutional network's layer whose Gram matrix is still made
CACHED = 1 << 24  # bytes of images' pulled outputs that are worth several rows at once


def why_affine(net: Network) -> str:
    """What a network of convolutions has that is too large for the multiplier form, "" if nothing.

    Its matrices are between the units of a layer, of the first the input's entries.
    """
    widest = max([layer.out_features for layer in net.parsed()[1:-1]], default=0)
    if widest <= GRAMS or net.is_mlp:
        return ""
    return (
        f"the multiplier form takes convolutional networks of at most {GRAMS} features "
        f"in each layer but the first and the last, this one has {widest}"
    )


class Displacement:
    """A network at x [B, D], for bounds at many radii: what no radius changes is computed once.

    Args:
        x: inputs [B, D].
        net: the network, D to m; a ValueError names an activation without a rule.
        scale: what multiplies the outputs, [B, m]; None for ones.
        groups: equal consecutive groups of the outputs that get a bound each.
        kernel: what computes the affine form of an MLP; None for matrix products of the library.
    """

    def __init__(
        self,
        x: Tensor,
        net: Network,
        scale: Tensor | None = None,
        groups: int = 1,
        kernel: Kernel | None = None,
    ) -> None:
        passed = network.forward if kernel is None else kernel.passed
        self.walk, self.groups, self._kernel = Walk(x, net, passed), groups, kernel
        self.scale = None if scale is None else scale.double().contiguous()
        self.good = finite(self.walk.x, self.scale)

    def bound(self, radius: Tensor, form: str = "smaller", rows: Tensor | None = None) -> Tensor:
        """‖scale ⊙ (net(x') − net(x))‖₂ per group for all ‖x' − x‖₂ ≤ radius: [n, groups] float64.

        Args:
            radius: [n].
            form: one of :data:`FORMS`; "smaller" computes both and takes the smaller, the affine
                one alone where :attr:`why_affine` says that there is no other.
            rows: which of the B rows these are, [n] int64; None for all.

        Raises:
            ValueError: the multiplier form of a network that has none.
        """
        self.check(form)
        if form == "smaller" and self.why_affine:
            form = "affine"
        if self._still:
            return self._nothing(radius, rows, self.groups)
        return self._chunked(self._bound, radius, form, rows)

    @cached_property
    def why_affine(self) -> str:
        """See :func:`why_affine`."""
        return why_affine(self.walk.net)

    def check(self, form: str) -> None:
        """Refuse a form that the network is too large for.

        Raises:
            ValueError: with the sizes.
        """
        if form in ("multiplier", "joint") and self.why_affine:
            raise ValueError(f'{self.why_affine}; form="affine" takes all')

    @property
    def images(self) -> bool:
        """Whether a layer is not linear."""
        return not self.walk.net.is_mlp

    def ellipsoid(self, radius: Tensor, rows: Tensor | None = None) -> Tensor:
        """Q [n, groups, m/groups, m/groups] with y yᵀ ≼ Q for every scaled displacement y.

        Raises:
            ValueError: the network has no multiplier form.
        """
        if self.why_affine:
            raise ValueError(self.why_affine)
        if self._still:
            m = self.walk.maps[-1].layer.out_features // self.groups
            return self._nothing(radius, rows, self.groups, m, m)
        return self._chunked(self._ellipsoid, radius, "multiplier", rows)

    @cached_property
    def _still(self) -> bool:
        """Whether nothing can move: there are no rows, or no features somewhere on the way."""
        layers = [layer_map.layer for layer_map in self.walk.maps]
        widths = [layers[0].in_features, *(layer.out_features for layer in layers)]
        passed_by = any(layer.residual is not None for layer in layers)
        return not len(self.good) or 0 in (widths[:1] if passed_by else widths)

    def _nothing(self, radius: Tensor, rows: Tensor | None, *shape: int) -> Tensor:
        every = slice(0, len(radius)) if rows is None else rows
        zero = radius.new_zeros(len(radius), *shape, dtype=torch.float64)
        return self._guarded(zero, radius.double(), every)

    def _chunked(
        self,
        function: Callable[..., Tensor],
        radius: Tensor,
        form: str,
        rows: Tensor | None,
    ) -> Tensor:
        radius = radius.double()
        known = self._of_kernel(radius, form, rows)
        if known is not None and form == "affine":
            every = slice(0, len(radius)) if rows is None else rows
            return self._guarded(known.rounded_up, radius, every)

        def run(part: slice) -> Tensor:
            chosen = part if rows is None else rows[part]
            own = None if known is None else known.part(part)
            return self._guarded(function(chosen, radius[part], form, own), radius[part], chosen)

        with torch.no_grad():
            if radius.is_cuda:
                parts = list(memory.row_chunks(len(radius), self.bytes_per_row(form)))
            else:
                bytes_per_row = threads.count() * self.bytes_per_row(form)
                parts = list(memory.row_chunks(len(radius), bytes_per_row, self._at_once()))
            if len(parts) < 2:
                return run(slice(0, len(radius)))
            if radius.is_cuda or threads.count() == 1:
                return torch.cat([run(part) for part in parts])
            return torch.cat(matrices.side_by_side(run, parts))

    def _of_kernel(self, radius: Tensor, form: str, rows: Tensor | None) -> Affine | None:
        """The kernel's affine form, with the units' ends where another form needs them."""
        if self._kernel is None:
            return None
        every = slice(0, len(radius)) if rows is None else rows
        scale = None if self.scale is None else self.scale[every]
        with torch.no_grad():
            return self._kernel.affine(
                self.walk, radius, scale, self.groups, every, form != "affine"
            )

    def _guarded(self, result: Tensor, radius: Tensor, rows: slice | Tensor) -> Tensor:
        """NaN in bad rows, 0 at radius 0, infinity for what else is not finite."""
        good = self.good[rows] & finite(radius) & (radius >= 0)
        result = result.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=torch.inf)
        zero = (radius == 0).reshape(-1, *[1] * (result.ndim - 1))
        return nan_where_bad(good, torch.where(zero, 0.0, result))[0]

    def _at_once(self) -> int:
        """Rows in a chunk on a processor."""
        sizes = [layer_map.layer.out_features for layer_map in self.walk.maps]
        few = CACHED // (8 * sizes[-1] * sum(sizes))
        return max(1, min(AT_ONCE, few)) if self.images else AT_ONCE

    def bytes_per_row(self, form: str) -> int:
        """Working memory that one row takes; at least a share of what caches hold."""
        layers = [layer_map.layer for layer_map in self.walk.maps]
        widths = [layer.out_features for layer in layers[:-1]] or [1]
        if form == "affine" and self.images:
            return 8 * (6 * layers[-1].out_features * sum(widths) + 3 * COLUMNS**2)
        matrices = {"affine": 6, "joint": 24}.get(form, 16)
        more = 4 if form == "joint" else 1
        return 8 * (matrices * max(widths) ** 2 + more * sum(widths) ** 2)

    def _bound(
        self, rows: slice | Tensor, radius: Tensor, form: str, known: Affine | None
    ) -> Tensor:
        if known is None:
            # of images, rows through relaxations cost half of it and change nothing that counts
            plain = self.images and form in ("multiplier", "joint")
            found = intervals(self.walk, rows, radius, plain=plain)
            rest = self._rounding(rows, radius, found)
            known = Affine(torch.full_like(rest, torch.inf), rest, None)
            if form in ("affine", "smaller"):
                known = known._replace(bound=self._affine(rows, radius, found))
        else:
            found = intervals(self.walk, rows, radius, known.ends)
        if form == "affine":
            return known.rounded_up
        how = self.walk, rows, radius, found, self._outputs(rows), self.groups
        parts = multipliers.parts(*how)
        bound = radius[:, None] * eigenvalue(parts.total()).clamp(min=0.0).sqrt()
        if form == "smaller":
            bound = torch.minimum(known.bound, bound)
        if form == "joint":
            bound = torch.minimum(parts.joint(radius, self.groups), bound)
        return known._replace(bound=bound).rounded_up

    def _ellipsoid(
        self, rows: slice | Tensor, radius: Tensor, form: str, known: Affine | None
    ) -> Tensor:
        found = intervals(self.walk, rows, radius, None if known is None else known.ends)
        rest = self._rounding(rows, radius, found) if known is None else known.rounding
        how = self.walk, rows, radius, found, self._outputs(rows), self.groups
        Q = multipliers.parts(*how).total()
        Q = INFLATION**2 * radius[:, None, None, None] ** 2 * Q
        size = eigenvalue(Q).clamp(min=0.0).sqrt()
        share = torch.where((rest > 0) & (size > 0), rest / (rest + size), 0.0)[..., None, None]
        eye = torch.eye(Q.shape[-1], dtype=torch.float64, device="cpu").to(Q)
        round_off = (rest * (rest + size))[..., None, None] * eye
        return Q / (1.0 - share) + round_off

    def _outputs(self, rows: slice | Tensor) -> Tensor:
        """The cotangents of the scaled output, [b, m, m] or [1, m, m]."""
        m = self.walk.maps[-1].layer.out_features
        if self.scale is None:
            return torch.eye(m, dtype=torch.float64, device="cpu").to(self.walk.x)[None]
        return torch.diag_embed(self.scale[rows])

    def _affine(self, rows: slice | Tensor, radius: Tensor, found: Intervals) -> Tensor:
        """R‖N₀‖₂ + ‖Σ N s‖₂ + √(εᵀ|NᵀN|ε) per group."""
        pulled = self.walk.of_output(self._outputs(rows), found.slopes)
        linear = eigenvalue(self._grouped(pulled.root @ pulled.root.mT)).clamp(min=0.0).sqrt()
        total = radius[:, None] * linear
        shift, errors = torch.zeros_like(total[:, :1]), []
        for k, N in pulled.units.items():
            _, _, relaxed = found.units(k)
            shift = shift + (N @ relaxed.shift.unsqueeze(-1)).squeeze(-1)
            errors.append(N * relaxed.error.unsqueeze(1))
        if not errors:
            return total
        own = shift.unflatten(1, (self.groups, -1)).norm(dim=-1)
        return total + own + remainder(errors, self.groups)

    def _grouped(self, Q: Tensor) -> Tensor:
        return multipliers.diagonal_blocks(Q, self.groups)

    def _rounding(self, rows: slice | Tensor, radius: Tensor, found: Intervals) -> Tensor:
        """What floating point can take off: [b, groups]."""
        reach, rounding = found.out
        rest = slack(self.walk) * radius[:, None] * reach + 2.0 * rounding
        if self.scale is not None:
            rest = rest * self.scale[rows].abs()
        return rest.unflatten(1, (self.groups, -1)).norm(dim=-1)


def displacement_ellipsoid(
    x: Tensor, radius: Tensor, net: Network, scale: Tensor | None = None
) -> Tensor:
    """Q [B, m, m] with y yᵀ ≼ Q for y = scale ⊙ (net(x') − net(x)), all ‖x' − x‖₂ ≤ radius.

    Args:
        x: inputs [B, D].
        radius: [B].
        net: the network, D to m.
        scale: [B, m]; None for ones.

    Returns:
        float64; NaN where a row of the inputs is not finite.

    Source: mathematics.md §8, the multiplier form.
    """
    return Displacement(x, net, scale).ellipsoid(radius)[:, 0]

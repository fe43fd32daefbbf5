"""The multiplier form: sums of vectors with y yᵀ ≼ Q, of deviations in weighted norms."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional import joint, multiplier_rows, relaxations
from vaefast.functional.definite import banded_gram, largest
from vaefast.functional.displacement_intervals import Intervals, slack, times
from vaefast.functional.displacement_walk import Pulled, Walk
from vaefast.functional.eigenvalues import eigenvalue
from vaefast.functional.multiplier_rows import FLOOR, Level
from vaefast.functional.sum_rule import least_sum, weighted
from vaefast.runtime import numerics

__all__ = ["Parts", "diagonal_blocks", "levels", "parts", "trace_bound"]

BALANCE = 1e-4  # of the balanced factors, whose mean is 1
SQUARINGS = 2
LARGE = 128  # rows of matrices that are squared in float32
POWERS = 4  # of power iterations, for weights only
TINY = 1e-150  # in place of a size of 0


class Parts(NamedTuple):
    """What adds up to the outputs' displacement.

    Args:
        levels: of the nonlinear layers.
        outputs: the outputs' rows [b, m, ·], over the units that deviate.
        sizes: layer ↦ Q [b, groups, n, n], y yᵀ ≼ R² Q of what its deviations add; −1 of the rest.
    """

    levels: dict[int, Level]
    outputs: Pulled
    sizes: dict[int, Tensor]

    def total(self) -> Tensor:
        """Q [b, groups, n, n], y yᵀ ≼ R² Q for y."""
        return least_sum(list(self.sizes.values()))

    def joint(self, radius: Tensor, groups: int) -> Tensor:
        """‖y‖ of each group by multipliers of all layers together, [b, groups]."""
        shares = {k: eigenvalue(Q).clamp(min=0.0).sqrt() for k, Q in self.sizes.items()}
        found = []
        for g in range(groups):
            own = Pulled(
                {k: N.unflatten(1, (groups, -1))[:, g] for k, N in self.outputs.units.items()},
                self.outputs.root.unflatten(1, (groups, -1))[:, g],
            )
            part = {k: share[:, g] for k, share in shares.items()}
            found.append(joint.bound(self.levels, own, part, radius))
        return torch.stack(found, 1)


def parts(
    walk: Walk,
    rows: slice | Tensor,
    radius: Tensor,
    found: Intervals,
    outputs: Tensor,
    groups: int,
) -> Parts:
    """Those of the displacement y of the outputs' rows [b, m, ·]."""
    known = levels(walk, rows, radius, found)
    slopes = [known[k].slope if k in known else None for k in range(len(walk.maps))]
    pulled = walk.of_output(outputs, slopes)
    root = pulled.root.expand(len(radius), -1, -1)
    sizes = {-1: diagonal_blocks(root @ root.mT, groups)}
    units = {k: known[k].columns(N).expand(len(radius), -1, -1) for k, N in pulled.units.items()}
    for k, N in units.items():
        shared = _balanced(known[k], N) if known[k].images else None  # a κ less for each group
        own = N.unflatten(1, (groups, -1)).unbind(1)
        sizes[k] = torch.stack([_deviation(known[k], one, shared) for one in own], 1)
    return Parts(known, Pulled(units, root), sizes)


def levels(walk: Walk, rows: slice | Tensor, radius: Tensor, found: Intervals) -> dict[int, Level]:
    """Those of the nonlinear layers, from the first to the last."""
    known: dict[int, Level] = {}
    slopes: list[Tensor | None] = [None] * len(walk.maps)
    for index, layer_map in enumerate(walk.maps):
        if layer_map.curve is not None:
            known[index] = _level(walk, index, rows, radius, found, slopes, known)
            slopes[index] = known[index].slope
    return known


def _level(
    walk: Walk,
    index: int,
    rows: slice | Tensor,
    radius: Tensor,
    found: Intervals,
    slopes: list[Tensor | None],
    before: dict[int, Level],
) -> Level:
    layer_map, (low, high) = walk.maps[index], found.ends(index)
    assert layer_map.curve is not None
    own = multiplier_rows.rows_of(walk, index, slopes, before)
    pad = slack(walk) * layer_map.unit_sizes(found.reach[index])
    if before:
        most = radius[:, None] * (own.bound(radius) + pad)
        low, high = torch.maximum(low, -most), torch.minimum(high, most)
    least, most = relaxations.secant_range(layer_map.curve, walk.anchors(index, rows), low, high)
    slope, spread = 0.5 * (most + least), 0.5 * (most - least)
    units = own.deviating(spread)
    pulled = own.chosen(units)
    spread, most, pad = (_at(t, units) for t in (spread, torch.maximum(high, -low), pad))
    wide = not pulled.units and pulled.root.shape[-2] > pulled.root.shape[-1]
    gram = banded_gram if own.images else _gram
    parts = [] if wide else [gram(pulled.root)]
    factor = pulled.root if wide else None
    level = Level(slope, units, spread, most, pad, parts, radius, pulled, factor, own.images)
    root = level.spread * level.spread.clamp(min=FLOOR).rsqrt()  # T^½ E of T = 1/E
    for k, N in pulled.units.items():
        # the better one of H×H, measured; of images 2 % for half of the time
        weights = _own(before[k]) if own.images else _balanced(before[k], root.unsqueeze(-1) * N)
        parts.append(gram(N * weights.unsqueeze(1)))
    return level._replace(own=_kappa(level, root))


def _gram(M: Tensor) -> Tensor:
    return M @ M.mT


def _at(t: Tensor, units: Tensor | None) -> Tensor:
    return t if units is None else t.expand(len(units), -1).gather(1, units)


def _own(level: Level) -> Tensor:
    """κ T^−½ of T = 1/E, [b, n]."""
    return level.own.sqrt()[:, None] * level.inverse.sqrt()


def _balanced(level: Level, N: Tensor) -> Tensor:
    """κ T^−½ [b, units] with T balanced between N's columns [b, ·, units] and the deviations."""
    deviates = level.spread > 0
    balanced = _normal(N.norm(dim=1), deviates) / _normal(level.spread * level.reach, deviates)
    kappa = _kappa(level, balanced.sqrt() * level.spread)
    return torch.where(deviates, kappa.sqrt()[:, None] * balanced.rsqrt(), 0.0)


def _deviation(level: Level, N: Tensor, balanced: Tensor | None = None) -> Tensor:
    """Q with (N e)(N e)ᵀ ≼ R² Q by the better of two T: 1/E and the balanced one.

    ``balanced``: what :func:`_balanced` says where it is not to be of these rows alone.
    """
    products = []
    for factor in (_own(level), _balanced(level, N) if balanced is None else balanced):
        scaled = N * factor.unsqueeze(1)
        products.append(scaled @ scaled.mT)
    sizes = [_estimate(Q) for Q in products]
    return torch.where((sizes[0] <= sizes[1])[:, None, None], products[0], products[1])


def _normal(t: Tensor, where: Tensor) -> Tensor:
    """Over the mean of the entries there, floored."""
    mean = (t * where).sum(1, keepdim=True) / where.sum(1, keepdim=True).clamp(min=1)
    return torch.where(mean > 0, t / mean, 1.0).clamp(min=BALANCE)


def _kappa(level: Level, root: Tensor) -> Tensor:
    """κ² ≥ λ_max(Σ D Q D/w), D = T^½E [b, units] (``root``), [b]."""
    bound, gram = (largest, banded_gram) if level.images else (trace_bound, _gram)
    if level.factor is None:
        sizes = [_estimate(part, root) for part in level.parts] if len(level.parts) > 1 else [root]
        top = bound(weighted(level.parts, sizes), root)
    else:  # the same eigenvalues, of a smaller matrix
        scaled = (level.factor * root.unsqueeze(-1)).mT
        top = bound(gram(scaled), root.new_ones(1, scaled.shape[-2]))
    return (top.sqrt() + (root * level.pad).norm(dim=1)).square()


def _estimate(Q: Tensor, root: Tensor | None = None) -> Tensor:
    """About λ_max, from below, of D Q D [b, n, n], positive semidefinite; D = diag(root) or I."""
    scale = Q.new_ones(1, Q.shape[-1]) if root is None else root
    v = Q.diagonal(dim1=-2, dim2=-1).sqrt() * scale + TINY
    for _ in range(POWERS):
        v = scale * times(Q, scale * (v / (v.norm(dim=1, keepdim=True) + TINY)))
    return v.norm(dim=1)


def trace_bound(Q: Tensor, root: Tensor) -> Tensor:
    """λ_max(D Q D) ≤ (tr (D Q D)⁸)^⅛, D = diag(root [b, n]) and Q ≽ 0, rounded up: [b].

    Large ones are squared in float32 where the library computes in it: with P of trace 1 for
    D Q D, ‖·‖ Frobenius' and u the unit round-off, P̃ ≈ P^k within δ has P̃² rounded to n u ‖P̃‖²,
    and P̃² − P^2k is at most δ(2‖P̃‖ + δ); what that adds up to is added to ‖P⁴‖.
    """
    trace = (Q.diagonal(dim1=-2, dim2=-1) * root.square()).sum(-1)
    scale = root * torch.where(trace > 0, trace, 1.0).rsqrt()[:, None]
    power = (Q * scale.unsqueeze(-1)).mul_(scale.unsqueeze(-2))
    n = Q.shape[-1]
    if n >= LARGE and numerics.single_is_single(Q.device):
        power = power.float()
    u = torch.finfo(power.dtype).eps
    size = 1.01 * torch.linalg.vector_norm(power, dim=(-2, -1)).double()
    error = 4.0 * n * 2.0**-52 * size + u * size
    for _ in range(SQUARINGS):
        power = power @ power
        error = error * (2.0 * size + error) + (n + 2) * u * size.square()
        size = 1.01 * torch.linalg.vector_norm(power, dim=(-2, -1)).double()
    norm = torch.linalg.vector_norm(power.double(), dim=(-2, -1)) + error
    return (1.0 + 1e-12) * trace * norm ** (0.5**SQUARINGS)


def diagonal_blocks(Q: Tensor, groups: int) -> Tensor:
    """[b, groups, n, n] of [b, groups·n, groups·n]."""
    if groups == 1:
        return Q.unsqueeze(1)
    n = Q.shape[-1] // groups
    return torch.stack([Q[:, g * n : (g + 1) * n, g * n : (g + 1) * n] for g in range(groups)], 1)

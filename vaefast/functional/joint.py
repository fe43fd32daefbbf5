"""The joint form: one multiplier per unit of all layers, chosen together for what the outputs do.

With y = N₀δ + Σ N_k e_k, u_l = M_l0 δ + Σ_{k<l} M_lk e_k and |e_l| ≤ E_l|u_l|, any D_l > 0 give
‖y‖² ≤ ‖y‖² + Σ_l (‖D_l^½ E_l u_l‖² − ‖D_l^½ e_l‖²). The largest value of the right side over all
e_L, then e_{L−1}, ..., then over δ is a bound; each is that of a quadratic form.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional.definite import banded_gram, largest
from vaefast.functional.displacement_walk import Pulled
from vaefast.functional.multiplier_rows import Level

__all__ = ["bound"]

STEPS = 6  # of descent on the logarithms of D
RATE = 0.25  # of the first, in log D
MOST = 0.9  # λ_max of G D⁻¹ Gᵀ that is proposed
LEAST = 0.01  # of the eigenvalues of I − G D⁻¹ Gᵀ, proven
BALANCE = 1e-3  # of factors, whose mean is 1
PAD = 1e-6  # share of a row's energy that is set aside for its rounding
INFLATION = 1.0 + 1e-7  # for rounding: matrices are conditioned by 1/LEAST at most
ROUGH, FINE = 8, 24  # power iterations: for sizes, for the vector that D is chosen for
TINY = 1e-150


class Eliminated(NamedTuple):
    """A layer's deviations given the ones below, e = D⁻¹ Cᵀ A⁻ᵀ t with t = Σ rest_k z_k.

    Args:
        columns: C, those of the layer, [b, rows, n].
        root: A with A Aᵀ = I − C D⁻¹ Cᵀ.
        rest: A⁻¹ times the others: k ↦ [b, rows, n_k], −1 of δ.
    """

    columns: Tensor
    root: Tensor
    rest: dict[int, Tensor]


def bound(
    levels: dict[int, Level],
    outputs: Pulled,
    shares: dict[int, Tensor],
    radius: Tensor,
) -> Tensor:
    """‖y‖ of one group of outputs, [b]; infinite where no D is proven.

    Args:
        levels: of the nonlinear layers.
        outputs: y's rows [b, m, ·], over the units that deviate.
        shares: what each layer's deviations add to ‖y‖ by the multiplier form, and δ at −1, [b].
        radius: [b].
    """
    form = _Form(levels, outputs, shares)
    best = torch.full_like(radius, torch.inf)
    first: dict[int, Tensor] = {}
    second: dict[int, Tensor] = {}
    for step in range(STEPS):
        value, slopes = form.value()
        best = torch.minimum(best, value.nan_to_num(torch.inf, torch.inf))
        for k, slope in slopes.items():  # Adam's rule
            first[k] = 0.8 * first.get(k, torch.zeros_like(slope)) + 0.2 * slope
            second[k] = 0.95 * second.get(k, torch.zeros_like(slope)) + 0.05 * slope.square()
            size = (second[k] / (1.0 - 0.95 ** (step + 1))).sqrt() + TINY
            form.logs[k] = form.logs[k] - RATE * first[k] / (1.0 - 0.8 ** (step + 1)) / size
    return INFLATION * radius * best.sqrt()


class _Form:
    """The quadratic form, and log D of each layer."""

    def __init__(
        self, levels: dict[int, Level], outputs: Pulled, shares: dict[int, Tensor]
    ) -> None:
        self.levels, self.shares, self.order = levels, shares, sorted(levels)
        b = len(shares[-1])
        self.outputs = {-1: outputs.root.expand(b, -1, -1), **outputs.units}
        rows = {k: level.rows for k, level in levels.items()}
        self.rows = {k: {-1: own.root.expand(b, -1, -1), **own.units} for k, own in rows.items()}
        self.logs: dict[int, Tensor] = {}
        self.v: Tensor | None = None

    def value(self) -> tuple[Tensor, dict[int, Tensor]]:
        """‖y‖²/R² [b], infinite where not proven, and its derivatives in log D."""
        G, done = self.outputs, {}
        held = torch.ones_like(self.shares[-1], dtype=torch.bool)
        rest = torch.zeros_like(self.shares[-1])
        for k in reversed(self.order):
            done[k], proven = self._eliminated(k, dict(G))
            held &= proven
            level, root = self.levels[k], (0.5 * self.logs[k]).exp() * self.levels[k].spread
            rest = rest + (1.0 + 1.0 / PAD) * (root * level.pad).square().sum(1)
            G = self._with(done[k].rest, k, (1.0 + PAD) ** 0.5 * root)
        H = self._gram(G[-1].mT)
        top = largest(H, H.new_ones(1, H.shape[-1])) + rest
        self.v = _leading(H, self.v, FINE)
        return torch.where(held, top, torch.inf), self._slopes(done, self.v, top)

    def _eliminated(self, k: int, G: dict[int, Tensor]) -> tuple[Eliminated, Tensor]:
        """Without the layer's columns, and whether I − C D⁻¹ Cᵀ ≽ ``LEAST`` is proven."""
        level = self.levels[k]
        C = G.pop(k) * (level.spread > 0).unsqueeze(1)
        if k not in self.logs:
            self.logs[k] = self._start(k, C)
        scaled = C * (-0.5 * self.logs[k]).exp().unsqueeze(1)
        K = self._gram(scaled)
        over = (_size(K) / MOST).clamp(min=1.0)
        self.logs[k] = self.logs[k] + over.log()[:, None]
        K = (K / over[:, None, None]).neg_()
        K.diagonal(dim1=-2, dim2=-1).add_(1.0 - LEAST)
        proven = torch.linalg.cholesky_ex(K).info == 0
        K.diagonal(dim1=-2, dim2=-1).add_(LEAST)
        A, _ = torch.linalg.cholesky_ex(K)
        names = list(G)
        parts = torch.cat([G[name] for name in names], 2)
        solved = torch.linalg.solve_triangular(A, parts, upper=False)
        split = solved.split([G[name].shape[2] for name in names], 2)
        return Eliminated(C, A, dict(zip(names, split, strict=True))), proven

    def _start(self, k: int, C: Tensor) -> Tensor:
        """D balanced between columns and deviations, as large as the layer's share asks."""
        level = self.levels[k]
        deviates = level.spread > 0
        T = _normal(C.norm(dim=1), deviates) / _normal(level.spread * level.reach, deviates)
        size = _size(self._gram(C * T.rsqrt().unsqueeze(1)))
        below = sum(self.shares[j] for j in (-1, *self.order) if j <= k)
        share = (self.shares[k] / below).clamp(0.02, MOST)
        return (T * (size / share + TINY)[:, None]).log()

    def _with(self, rest: dict[int, Tensor], k: int, root: Tensor) -> dict[int, Tensor]:
        """With the rows of the layer's units times ``root``."""
        own, n = self.rows[k], root.shape[1]
        nothing = {j: t.new_zeros(len(t), n, t.shape[2]) for j, t in rest.items() if j not in own}
        added = {j: root.unsqueeze(-1) * t for j, t in own.items()} | nothing
        return {j: torch.cat((t, added[j]), 1) for j, t in rest.items()}

    def _gram(self, M: Tensor) -> Tensor:
        images = any(level.images for level in self.levels.values())
        return banded_gram(M) if images else M @ M.mT

    def _slopes(self, done: dict[int, Eliminated], v: Tensor, top: Tensor) -> dict[int, Tensor]:
        """D(E²u² − e²)/‖y‖² at the δ, e and u where the form is largest."""
        z, slopes = {-1: v}, {}
        for k in self.order:
            C, A, rest = done[k]
            t = _sum(rest, z)
            back = torch.linalg.solve_triangular(A.mT, t.unsqueeze(-1), upper=True)
            D = self.logs[k].exp()
            z[k] = (C.mT @ back).squeeze(-1) / D
            u = self.levels[k].spread * _sum(self.rows[k], z)
            slopes[k] = D * (u.square() - z[k].square()) / top[:, None]
        return slopes


def _sum(rows: dict[int, Tensor], z: dict[int, Tensor]) -> Tensor:
    return torch.stack([(t @ z[k].unsqueeze(-1)).squeeze(-1) for k, t in rows.items()]).sum(0)


def _leading(H: Tensor, v: Tensor | None, steps: int) -> Tensor:
    """About the leading eigenvector of H ≽ 0 [b, n, n]."""
    v = H.diagonal(dim1=-2, dim2=-1).sqrt() + TINY if v is None else v
    for _ in range(steps):
        v = v / (v.norm(dim=1, keepdim=True) + TINY)
        v = (H @ v.unsqueeze(-1)).squeeze(-1)
    return v / (v.norm(dim=1, keepdim=True) + TINY)


def _size(H: Tensor) -> Tensor:
    """About λ_max of H ≽ 0, from below, [b]."""
    v = _leading(H, None, ROUGH)
    return (H @ v.unsqueeze(-1)).squeeze(-1).norm(dim=1)


def _normal(t: Tensor, where: Tensor) -> Tensor:
    """Over the mean of the entries there, floored."""
    mean = (t * where).sum(1, keepdim=True) / where.sum(1, keepdim=True).clamp(min=1)
    return torch.where(mean > 0, t / mean, 1.0).clamp(min=BALANCE)

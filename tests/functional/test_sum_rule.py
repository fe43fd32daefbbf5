"""The sum rule's weights: the sum holds for any of them, and is never larger than for w ∝ √λ."""

from __future__ import annotations

import pytest
import torch

from vaefast.functional.eigenvalues import eigenvalue
from vaefast.functional.sum_rule import least_sum, weighted


def random_parts(seed: int, count: int, n: int = 5, rows: tuple[int, ...] = (6, 2)):
    """Positive semidefinite [*rows, n, n] of different sizes and ranks."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randn(*size, generator=generator, dtype=torch.float64)  # noqa: E731
    factors = [draw(*rows, n, 1 + k) * draw(*rows, 1, 1).exp() for k in range(count)]
    return [F @ F.mT for F in factors]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_sum_of_vectors_within_their_parts_is_within_the_sum(count: int):
    parts = random_parts(0, count)
    Q = least_sum(parts)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        total = torch.zeros(6, 2, 5, dtype=torch.float64)
        for part in parts:  # v = Q_k^½ u with ‖u‖ = 1, which has v vᵀ ≼ Q_k
            values, vectors = torch.linalg.eigh(part)
            u = torch.randn(6, 2, 5, 1, generator=generator, dtype=torch.float64)
            root = vectors * values.clamp(min=0.0).sqrt().unsqueeze(-2) @ vectors.mT
            total += (root @ (u / u.norm(dim=-2, keepdim=True))).squeeze(-1)
        rest = Q - total.unsqueeze(-1) * total.unsqueeze(-2)
        scale = eigenvalue(Q)
        assert bool((torch.linalg.eigvalsh(rest)[..., 0] > -1e-9 * scale).all())


@pytest.mark.parametrize("seed", range(4))
def test_it_is_no_larger_than_by_either_rule_and_near_the_least(seed: int):
    parts = random_parts(seed, 3)
    found = eigenvalue(least_sum(parts))
    by_root = eigenvalue(weighted(parts, [eigenvalue(part) for part in parts]))
    equal = eigenvalue(weighted(parts, [torch.ones(6, 2).double()] * 3))
    assert bool((found <= by_root).all())
    assert bool((found <= equal).all())
    assert bool((found < 0.999 * by_root).any())
    w = torch.cartesian_prod(*[torch.linspace(0.02, 0.96, 40, dtype=torch.float64)] * 2)
    w = w[w.sum(1) < 0.98]
    w = torch.cat([w, 1.0 - w.sum(1, keepdim=True)], dim=1).mT[..., None, None, None, None]
    least = eigenvalue(sum(p / share for p, share in zip(parts, w, strict=True))).amin(0)
    assert bool((found < 1.15 * least).all())
    assert float((found / least).median()) < 1.001


def test_parts_that_are_0_cost_nothing():
    first = random_parts(0, 1)[0]
    nothing = torch.zeros_like(first)
    assert torch.allclose(least_sum([first, nothing]), first, rtol=1e-4)
    assert not bool(least_sum([nothing, nothing]).any())


def test_a_row_that_is_not_finite_stays_alone():
    parts = random_parts(0, 2)
    parts[1][2] = torch.nan
    found = least_sum(parts)
    assert bool(found[2].isnan().all())
    assert torch.equal(found[:2], least_sum([part[:2] for part in parts]))

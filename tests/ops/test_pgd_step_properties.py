"""pgd_step at random sizes and parameters; in a file of its own, for it needs hypothesis."""

import math

import pytest
import torch

import vaefast as vf
from vaefast.bench.cases import images

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

NORMS = ("linf", "l2")


@pytest.fixture(autouse=True)
def _needs_backend(backend, require):
    require("pgd_step", backend)


def distance(result, x, norm):
    return torch.linalg.vector_norm(result - x, ord=math.inf if norm == "linf" else 2, dim=1)


@hypothesis.given(
    B=st.integers(1, 4),
    D=st.integers(1, 70),
    eps=st.floats(0, 3),
    alpha=st.floats(-1, 3),
    low=st.floats(-1, 0.4),
    high=st.floats(0.5, 2),
    seed=st.integers(0, 99),
)
@hypothesis.settings(max_examples=25, deadline=None)
def test_result_lies_in_the_ball_and_in_the_box(backend, B, D, eps, alpha, low, high, seed):
    for norm in NORMS:
        x_adv, grad, x = images(B, D, dtype=torch.float64, seed=seed)
        x = x.clamp(low, high)
        result = vf.pgd_step(
            x_adv, grad, x, alpha=alpha, eps=eps, norm=norm, low=low, high=high, backend=backend
        )
        assert (distance(result, x, norm) <= eps * (1 + 1e-12) + 1e-15).all()
        assert (result >= low).all()
        assert (result <= high).all()


@hypothesis.given(
    D=st.integers(1, 70),
    eps=st.floats(0, 3),
    alpha=st.floats(-1, 3),
    seed=st.integers(0, 99),
)
@hypothesis.settings(max_examples=25, deadline=None)
def test_in_either_order_the_result_lies_in_the_ball(backend, D, eps, alpha, seed):
    """With a box of its own for each element, which holds the results that are clipped last."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.rand(2, 3, D, generator=generator, dtype=torch.float64).sort(dim=0).values
    for norm in NORMS:
        x_adv, grad, x = images(3, D, dtype=torch.float64, seed=seed)
        x = x.clamp(*ends)
        options = {"alpha": alpha, "eps": eps, "norm": norm, "low": ends[0], "high": ends[1]}
        clipped = vf.pgd_step(x_adv, grad, x, **options, backend=backend)
        projected = vf.pgd_step(x_adv, grad, x, **options, order="clip_project", backend=backend)
        for result in (clipped, projected):
            assert (distance(result, x, norm) <= eps * (1 + 1e-12) + 1e-15).all()
        assert (clipped >= ends[0]).all()
        assert (clipped <= ends[1]).all()

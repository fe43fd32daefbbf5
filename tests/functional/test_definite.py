"""Largest eigenvalues are proven, not estimated."""

import torch

from vaefast.functional.definite import largest

# From the root of its diagonal no power of the matrix leads to the eigenvector (1, −1, 0).
HIDDEN = torch.tensor([[0.6, -0.4, 0.0], [-0.4, 0.6, 0.0], [0.0, 0.0, 0.995]]).double()


def test_an_eigenvalue_that_the_estimate_does_not_see_is_no_smaller_than_the_bound():
    """The estimate is .995 and the largest 1: the first proposal is refused, the second holds."""
    bound = largest(HIDDEN[None], torch.ones(1, 3).double())
    assert 1.0 <= bound.item() <= 1.01


def test_where_no_proposal_holds_the_trace_is_left():
    Q = torch.tensor([[2.0, -1.0], [-1.0, 2.0]]).double()  # the estimate is 1, the largest 3
    bound = largest(Q[None], torch.ones(1, 2).double())
    torch.testing.assert_close(bound, torch.tensor([4.0]).double())


def test_bounds_of_random_matrices_are_above_and_near():
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(8, 30, 40, generator=generator).double()
    root = 0.1 + torch.rand(8, 30, generator=generator).double()
    scaled = root[:, :, None] * (A @ A.mT) * root[:, None, :]
    exact = torch.linalg.eigvalsh(scaled)[:, -1]
    bound = largest(A @ A.mT, root)
    assert (bound >= exact).all()
    assert (bound <= 1.002 * exact).all()

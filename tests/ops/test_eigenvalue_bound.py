"""eigenvalue_bound: never below the largest eigenvalue, hardly above it."""

import math
from functools import partial

import pytest
import torch

from vaefast import ops
from vaefast.functional.eigenvalues import SQUARINGS, inflation


@pytest.fixture
def bound(backend):
    return partial(ops.eigenvalue_bound, backend=backend)


def spectra(d):
    """Decaying, flat, rank one, rank one in noise, clustered at the top, and zero."""
    ramp = torch.arange(d, dtype=torch.float64)
    first = (ramp == 0).double()
    return torch.stack(
        [0.8**ramp, 0 * ramp + 1, first, first + 1e-13 * ramp, 1 - 1e-9 * ramp, 0 * ramp]
    )


def with_spectra(values, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    d = values.shape[1]
    Q = torch.linalg.qr(torch.randn(len(values), d, d, generator=generator).double()).Q
    root = Q * values.sqrt()[:, None, :]
    return scale * (root @ root.mT)


@pytest.mark.parametrize("d", [1, 2, 33, 128])
def test_bounds_from_above_and_closely(bound, d):
    A = with_spectra(spectra(d), 7.3)[0 if d < 33 else 3 :]
    top, found = torch.linalg.eigvalsh(A)[:, -1], bound(A)
    assert found.dtype == torch.float64
    assert (found >= top).all()
    assert (found <= top * (1 + 3e-6) + 1e-300).all()
    assert found[-1] == 0


@pytest.mark.parametrize("d", [2, 33])
def test_covers_rounding_where_it_shows(bound, d):
    """Diagonal matrices, whose largest entry is the eigenvalue itself, and what is near them."""
    diagonal = torch.rand(3, d, generator=torch.Generator().manual_seed(d)).double()
    found = bound(torch.diag_embed(diagonal))
    top = diagonal.max(1).values
    assert (found > top).all()
    flat = with_spectra(torch.ones(2, d, dtype=torch.float64))
    allowed = d ** (0.5 / 2**SQUARINGS)
    assert (bound(flat) <= allowed * (1 + 4 * (inflation(d) - 1))).all()


@pytest.mark.parametrize("scale", [1e-310, 1e-160, 1e160, 1e303])
def test_neither_overflows_nor_underflows(bound, scale):
    A = with_spectra(torch.rand(2, 3, generator=torch.Generator().manual_seed(1)).double())
    top, found = scale * torch.linalg.eigvalsh(A)[:, -1], bound(scale * A)
    assert (found >= top * (1 - 1e-12)).all()
    assert (found <= top * (1 + 3e-6) + 3e-308).all()


def test_slightly_indefinite_matrices(bound):
    """Round-off may leave a Gram matrix with negative eigenvalues."""
    A = with_spectra(spectra(5)) - 1e-12 * torch.eye(5, dtype=torch.float64)
    assert (bound(A) >= torch.linalg.eigvalsh(A)[:, -1]).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_matrix_is_nan_and_the_others_are_untouched(bound, bad):
    A = with_spectra(torch.rand(3, 4, generator=torch.Generator().manual_seed(2)).double())
    clean = bound(A)
    A[1, 2, 0] = bad
    found = bound(A)
    assert found[1].isnan()
    assert torch.equal(found[[0, 2]], clean[[0, 2]])


def test_batches(bound):
    A = with_spectra(torch.rand(5, 3, generator=torch.Generator().manual_seed(3)).double())
    whole = bound(A)
    torch.testing.assert_close(bound(A[2:]), whole[2:], rtol=1e-14, atol=0)
    assert bound(A[:0]).shape == (0,)


def test_agrees_with_the_reference(bound):
    A = with_spectra(spectra(10))
    expected = ops.eigenvalue_bound(A, backend="reference")
    torch.testing.assert_close(bound(A), expected, rtol=1e-12, atol=0)


def test_there_is_no_cpp_backend():
    with pytest.raises(RuntimeError, match='eigenvalue_bound has no "cpp" backend yet'):
        ops.eigenvalue_bound(torch.zeros(1, 2, 2).double(), backend="cpp")


@pytest.mark.parametrize(
    ("A", "error", "message"),
    [
        (torch.zeros(2, 3).double(), ValueError, r"A must be \[B, d, d\], got \[2, 3\]"),
        (torch.zeros(1, 2, 3).double(), ValueError, r"A must be \[B, d, d\], got \[1, 2, 3\]"),
        (torch.zeros(1, 2, 2), TypeError, r"A must be float64, got float32; pass A.double\(\)"),
    ],
)
def test_errors_say_what_came_and_what_to_do(A, error, message):
    with pytest.raises(error, match=message):
        ops.eigenvalue_bound(A)

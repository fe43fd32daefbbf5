"""eigenvalue_bound: never below the largest eigenvalue, hardly above it."""

import math

import pytest
import torch

from vaefast.reference import eigenvalue_bound as reference


@pytest.fixture
def bound(backend, require):
    if backend == "cpp":
        pytest.skip("the CPU takes an eigensolver")
    require("net_jacobian_gram", backend, torch.float64)
    if backend == "reference":
        return reference.eigenvalue_bound
    from vaefast.kernels import eigenvalue_bound

    return eigenvalue_bound.eigenvalue_bound


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
    allowed = d ** (0.5 / 2**reference.SQUARINGS)
    assert (bound(flat) <= allowed * (1 + 4 * (reference.inflation(d) - 1))).all()


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


def test_the_triton_kernel_agrees_with_the_reference(backend, require):
    if backend != "triton":
        pytest.skip("compares triton with the reference")
    require("net_jacobian_gram", backend, torch.float64)
    from vaefast.kernels.eigenvalue_bound import eigenvalue_bound

    A = with_spectra(spectra(10))
    torch.testing.assert_close(
        eigenvalue_bound(A), reference.eigenvalue_bound(A), rtol=1e-12, atol=0
    )

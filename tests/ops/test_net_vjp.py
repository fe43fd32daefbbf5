"""net_vjp: vectors times Jacobian against autograd's Jacobian; the transpose of net_jvp."""

import math

import pytest
import torch
from torch.autograd.functional import jacobian

import vaefast as vf
from vaefast.bench.cases import ACTIVATIONS, images, network
from vaefast.ops import net_forward, net_jvp, net_vjp
from vaefast.types import Network

WIDTHS = (12, 8, 6, 4)
WIDE = (200, 96, 70, 40)  # several panels, and no multiple of one
BROAD = (400, 96, 70, 40)  # so wide that the norms take the triangular factor of W₁


def case(B=3, K=5, names="tanh,silu,identity", *, own=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (B, K, WIDTHS[-1]) if own else (K, WIDTHS[-1])
    u = torch.randn(shape, generator=generator, dtype=torch.float64)
    return images(B, WIDTHS[0], dtype=torch.float64).x, u, network(WIDTHS, names)


def jacobians(x, net):
    """J at each row of x, [B, d, D]."""
    return torch.stack(
        [jacobian(lambda t: net_forward(t[None], net, backend="reference")[0], row) for row in x]
    )


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_products_and_norms(backend, name, own):
    x, u, net = case(names=f"{name},{name},{name}", own=own)
    y, sq, products = net_vjp(x, u, net, full=True, backend=backend)
    expected = torch.einsum("bij,bki->bkj", jacobians(x, net), u.expand(3, 5, -1))
    torch.testing.assert_close(y, net_forward(x, net))
    torch.testing.assert_close(products, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(sq, expected.square().sum(2), rtol=1e-10, atol=1e-12)


def test_is_the_transpose_of_jvp(backend):
    """⟨u, Jv⟩ = ⟨Jᵀu, v⟩."""
    x, u, net = case(names="gelu,maxmin,sigmoid")
    v = torch.randn(7, WIDTHS[0], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    _, _, pushed = net_jvp(x, v, net, full=True)
    _, _, pulled = net_vjp(x, u, net, full=True, backend=backend)
    torch.testing.assert_close(
        torch.einsum("ki,bli->bkl", u, pushed), torch.einsum("bkj,lj->bkl", pulled, v)
    )


def test_norms_alone_are_the_same_and_float64(backend):
    x, u, net = case()
    full = net_vjp(x, u, net, full=True, backend=backend)
    brief = net_vjp(x, u, net, backend=backend)
    assert len(brief) == 2
    torch.testing.assert_close(brief, full[:2])
    narrow = network(WIDTHS, ",".join(net.activations), dtype=torch.float32)
    y, sq = net_vjp(x.float(), u.float(), narrow, backend=backend)
    assert y.dtype == torch.float32
    assert sq.dtype == torch.float64
    torch.testing.assert_close(sq, full[1], rtol=1e-5, atol=1e-5)


def test_unit_vectors_give_the_rows_of_the_jacobian(backend):
    x, _, net = case()
    _, sq, products = net_vjp(x, torch.eye(4, dtype=torch.float64), net, full=True, backend=backend)
    J = jacobians(x, net)
    torch.testing.assert_close(products, J)
    torch.testing.assert_close(sq.sum(1), J.square().sum((1, 2)))


@pytest.mark.parametrize(("B", "K"), [(0, 3), (2, 0), (1, 1)])
def test_sizes(backend, B, K):
    y, sq, products = net_vjp(*case(B, K), full=True, backend=backend)
    assert (y.shape, sq.shape, products.shape) == ((B, 4), (B, K), (B, K, 12))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_rows_are_nan_and_the_others_are_untouched(backend, bad):
    x, u, net = case(own=True)
    clean = net_vjp(x, u, net, full=True, backend=backend)
    x[0, 3] = bad
    u[2, 1, 1] = bad
    for result, before in zip(net_vjp(x, u, net, full=True, backend=backend), clean):
        assert result[[0, 2]].isnan().all()
        torch.testing.assert_close(result[1], before[1])


@pytest.mark.parametrize("own", [False, True])
def test_any_cut_of_the_batch_gives_the_same_rows(backend, own):
    x, u, net = case(20, own=own)
    whole = net_vjp(x, u, net, full=True, backend=backend)
    tail = net_vjp(x[7:], u[7:] if own else u, net, full=True, backend=backend)
    torch.testing.assert_close(tail, tuple(t[7:] for t in whole))
    vf.set_memory(1)
    torch.testing.assert_close(net_vjp(x, u, net, full=True, backend=backend), whole)


def wide_case(B, K, names="tanh,maxmin,identity", *, own=False, widths=WIDE, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    shape = (B, K, widths[-1]) if own else (K, widths[-1])
    u = torch.randn(shape, generator=generator, dtype=torch.float64)
    x = images(B, widths[0], dtype=torch.float64).x
    return x.to(dtype), u.to(dtype), network(widths, names, dtype=dtype)


@pytest.mark.parametrize("widths", [WIDE, BROAD])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("names", ["tanh,maxmin,identity", "relu,relu,identity"])
@pytest.mark.parametrize(("B", "K"), [(1, 8), (3, 150), (130, 1), (33, 7)])
def test_bits_depend_on_nothing_but_the_row(backend, B, K, own, widths, names):
    """Any cut of inputs or probes, number of threads or repetition gives the same bits.

    Norms alone may differ from those beside products: a wide first layer gives way to its factor.
    """
    if backend == "reference":
        pytest.skip("a library's products may depend on the shape")
    x, u, net = wide_case(B, K, names, own=own, widths=widths, dtype=torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            norms = net_vjp(x, u, net, backend=backend)[1]
            results.append((*net_vjp(x, u, net, full=True, backend=backend), norms))
    finally:
        torch.set_num_threads(before)
    whole = results[0]
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(whole, other))
    rows, own_probes = x[B // 2 :], u[B // 2 :] if own else u
    cut = net_vjp(rows, own_probes, net, full=True, backend=backend)
    assert all(torch.equal(a[B // 2 :], b) for a, b in zip(whole, cut))
    some = u[..., K // 2 :, :]
    _, sq, products = net_vjp(x, some, net, full=True, backend=backend)
    assert torch.equal(sq, whole[1][:, K // 2 :])
    assert torch.equal(products, whole[2][:, K // 2 :])
    assert torch.equal(net_vjp(rows, own_probes, net, backend=backend)[1], whole[3][B // 2 :])
    assert torch.equal(net_vjp(x, some, net, backend=backend)[1], whole[3][:, K // 2 :])
    torch.testing.assert_close(whole[3], whole[1], rtol=1e-5, atol=0)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    ("widths", "names"),
    [
        (WIDE, "tanh,silu,identity"),
        (WIDE, "relu,maxmin,sigmoid"),
        (BROAD, "tanh,silu,identity"),
        (BROAD, "relu,maxmin,sigmoid"),
        (BROAD, "relu,relu,relu"),
        ((400, 40), "sigmoid"),
    ],
)
def test_float32_errs_at_most_twice_as_much_as_eager(backend, names, own, widths):
    x, u, net = wide_case(20, 9, names, own=own, widths=widths, dtype=torch.float32)
    exact = Network([w.double() for w in net.weights], [b.double() for b in net.biases], net.layers)
    truth = net_vjp(x.double(), u.double(), exact, full=True, backend="reference")
    eager = net_vjp(x, u, net, full=True, backend="reference")
    for t, e, found in zip(truth, eager, net_vjp(x, u, net, full=True, backend=backend)):
        assert (found - t).abs().max() <= 2 * (e - t).abs().max() + 4 * 2**-24 * t.abs().max()


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    ("widths", "names"), [((1, 1), "tanh"), ((7, 3), "identity"), (WIDE, "silu,tanh,maxmin")]
)
def test_strides_depths_and_missing_biases(backend, widths, names, own):
    x, u, net = wide_case(5, 4, names, own=own, widths=widths)
    net = net._replace(biases=[None] * len(net.weights))
    expected = net_vjp(x, u, net, full=True, backend="reference")
    x, u = (torch.stack([t, t], -1).flatten(-2)[..., ::2] for t in (x, u))
    found = net_vjp(x, u, net, full=True, backend=backend)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("where", ["first", "last"])
def test_a_bad_shared_probe_makes_all_rows_nan(backend, where):
    x, u, net = case(20)
    u[0 if where == "first" else -1, 2] = math.nan
    for result in net_vjp(x, u, net, full=True, backend=backend):
        assert result.isnan().all()


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("layer", "row", "column"), [(0, 60, 7), (1, 69, 95), (2, 3, 69)])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_weights_spread_as_they_do_in_eager(backend, bad, layer, row, column, own):
    """Zero slopes of relu do not hide them, although zeros are skipped where weights are finite."""
    x, u, net = wide_case(3, 9, "relu,relu,identity", own=own, dtype=torch.float32)
    net.weights[layer][row, column] = bad
    expected = net_vjp(x, u, net, full=True, backend="reference")
    for found, e in zip(net_vjp(x, u, net, full=True, backend=backend), expected):
        assert torch.equal(found.isfinite(), e.isfinite())


@pytest.mark.parametrize("widths", [WIDE, BROAD])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("precision", "allowed"), [("tf32", 3e-3), ("bf16", 5e-2)])
def test_lower_precisions(backend, precision, allowed, full, widths):
    x, u, net = wide_case(3, 6, "tanh,silu,sigmoid", widths=widths, dtype=torch.float32)
    exact = net_vjp(x, u, net, full=full, backend="reference")
    found = net_vjp(x, u, net, full=full, precision=precision, backend=backend)
    for f, e in zip(found, exact):
        assert (f - e).abs().max() <= allowed * e.abs().max()


def test_inputs_that_require_grad():
    x, u, net = case(2, 2)
    with pytest.raises(RuntimeError, match="net_vjp is not differentiable; use backend="):
        net_vjp(x.requires_grad_(), u, net)
    assert torch.autograd.gradcheck(
        lambda x, u: net_vjp(x, u, net, full=True, backend="reference"), (x, u.requires_grad_())
    )


def test_probes_of_the_wrong_width_are_refused():
    x, _, net = case()
    with pytest.raises(ValueError, match=r"u must be \[K, 4\] or \[3, K, 4\], got \[5, 12\]"):
        net_vjp(x, torch.zeros(5, 12, dtype=torch.float64), net)

"""net_jvp: Jacobian times vectors against autograd's Jacobian, and Hutchinson's identity."""

import math
from itertools import pairwise

import pytest
import torch
from torch.autograd.functional import jacobian

import vaefast as vf
from vaefast.bench.cases import ACTIVATIONS, images, network
from vaefast.ops import net_forward, net_jvp
from vaefast.types import Network

WIDTHS = (12, 8, 6, 4)
WIDE = (200, 96, 70, 40)  # several panels, and no multiple of one


def case(B=3, K=5, names="tanh,silu,identity", *, own=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (B, K, WIDTHS[0]) if own else (K, WIDTHS[0])
    v = torch.randn(shape, generator=generator, dtype=torch.float64)
    return images(B, WIDTHS[0], dtype=torch.float64).x, v, network(WIDTHS, names)


def jacobians(x, net):
    """J at each row of x, [B, d, D]."""
    return torch.stack(
        [jacobian(lambda t: net_forward(t[None], net, backend="reference")[0], row) for row in x]
    )


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_products_and_norms(backend, name, own):
    x, v, net = case(names=f"{name},{name},{name}", own=own)
    y, sq, products = net_jvp(x, v, net, full=True, backend=backend)
    expected = torch.einsum("bij,bkj->bki", jacobians(x, net), v.expand(3, 5, -1))
    torch.testing.assert_close(y, net_forward(x, net))
    torch.testing.assert_close(products, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(sq, expected.square().sum(2), rtol=1e-10, atol=1e-12)


def test_norms_alone_are_the_same_and_float64(backend):
    x, v, net = case()
    full = net_jvp(x, v, net, full=True, backend=backend)
    brief = net_jvp(x, v, net, backend=backend)
    assert len(brief) == 2
    torch.testing.assert_close(brief, full[:2])
    narrow = network(WIDTHS, ",".join(net.activations), dtype=torch.float32)
    y, sq = net_jvp(x.float(), v.float(), narrow, backend=backend)
    assert y.dtype == torch.float32
    assert sq.dtype == torch.float64
    torch.testing.assert_close(sq, full[1], rtol=1e-5, atol=1e-5)


def test_unit_vectors_give_the_frobenius_norm(backend):
    x, _, net = case()
    _, sq = net_jvp(x, torch.eye(WIDTHS[0], dtype=torch.float64), net, backend=backend)
    torch.testing.assert_close(sq.sum(1), jacobians(x, net).square().sum((1, 2)))


def test_gaussian_probes_estimate_the_frobenius_norm(backend):
    x, _, net = case()
    v = torch.randn(
        4000, WIDTHS[0], dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    _, sq = net_jvp(x, v, net, backend=backend)
    error = sq.std(1) / math.sqrt(4000)
    truth = jacobians(x, net).square().sum((1, 2))
    assert ((sq.mean(1) - truth).abs() < 4 * error).all()


@pytest.mark.parametrize(("B", "K"), [(0, 3), (2, 0), (1, 1)])
def test_sizes(backend, B, K):
    y, sq, products = net_jvp(*case(B, K), full=True, backend=backend)
    assert (y.shape, sq.shape, products.shape) == ((B, 4), (B, K), (B, K, 4))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_rows_are_nan_and_the_others_are_untouched(backend, bad):
    x, v, net = case(own=True)
    clean = net_jvp(x, v, net, full=True, backend=backend)
    x[0, 3] = bad
    v[2, 1, 1] = bad
    for result, before in zip(net_jvp(x, v, net, full=True, backend=backend), clean):
        assert result[[0, 2]].isnan().all()
        torch.testing.assert_close(result[1], before[1])


@pytest.mark.parametrize("own", [False, True])
def test_any_cut_of_the_batch_gives_the_same_rows(backend, own):
    x, v, net = case(20, own=own)
    whole = net_jvp(x, v, net, full=True, backend=backend)
    tail = net_jvp(x[7:], v[7:] if own else v, net, full=True, backend=backend)
    torch.testing.assert_close(tail, tuple(t[7:] for t in whole))
    vf.set_memory(1)
    torch.testing.assert_close(net_jvp(x, v, net, full=True, backend=backend), whole)


def wide_case(B, K, names="tanh,maxmin,identity", *, own=False, widths=WIDE, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    shape = (B, K, widths[0]) if own else (K, widths[0])
    v = torch.randn(shape, generator=generator, dtype=torch.float64)
    x = images(B, widths[0], dtype=torch.float64).x
    return x.to(dtype), v.to(dtype), network(widths, names, dtype=dtype)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("names", ["tanh,maxmin,identity", "relu,relu,identity"])
@pytest.mark.parametrize(("B", "K"), [(1, 8), (3, 150), (130, 1), (33, 7)])
def test_bits_depend_on_nothing_but_the_row(backend, B, K, own, names):
    """Any cut of inputs or probes, number of threads or repetition gives the same bits."""
    if backend == "reference":
        pytest.skip("a library's products may depend on the shape")
    x, v, net = wide_case(B, K, names, own=own, dtype=torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            results.append(net_jvp(x, v, net, full=True, backend=backend))
    finally:
        torch.set_num_threads(before)
    whole = results[0]
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(whole, other))
    cut = net_jvp(x[B // 2 :], v[B // 2 :] if own else v, net, full=True, backend=backend)
    assert all(torch.equal(a[B // 2 :], b) for a, b in zip(whole, cut))
    _, sq, products = net_jvp(x, v[..., K // 2 :, :], net, full=True, backend=backend)
    assert torch.equal(sq, whole[1][:, K // 2 :])
    assert torch.equal(products, whole[2][:, K // 2 :])
    brief = net_jvp(x, v, net, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(whole, brief))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("names", ["tanh,silu,identity", "relu,maxmin,sigmoid", "relu,relu,relu"])
def test_float32_errs_at_most_twice_as_much_as_eager(backend, names, own):
    x, v, net = wide_case(20, 9, names, own=own, dtype=torch.float32)
    exact = Network([w.double() for w in net.weights], [b.double() for b in net.biases], net.layers)
    truth = net_jvp(x.double(), v.double(), exact, full=True, backend="reference")
    eager = net_jvp(x, v, net, full=True, backend="reference")
    for t, e, found in zip(truth, eager, net_jvp(x, v, net, full=True, backend=backend)):
        assert (found - t).abs().max() <= 2 * (e - t).abs().max() + 4 * 2**-24 * t.abs().max()


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    ("widths", "names"), [((1, 1), "tanh"), ((7, 3), "identity"), (WIDE, "silu,tanh,maxmin")]
)
def test_strides_depths_and_missing_biases(backend, widths, names, own):
    x, v, net = wide_case(5, 4, names, own=own, widths=widths)
    net = net._replace(biases=[None] * len(net.weights))
    expected = net_jvp(x, v, net, full=True, backend="reference")
    x, v = (torch.stack([t, t], -1).flatten(-2)[..., ::2] for t in (x, v))
    found = net_jvp(x, v, net, full=True, backend=backend)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("where", ["first", "last"])
def test_a_bad_shared_probe_makes_all_rows_nan(backend, where):
    x, v, net = case(20)
    v[0 if where == "first" else -1, 2] = math.nan
    for result in net_jvp(x, v, net, full=True, backend=backend):
        assert result.isnan().all()


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("layer", "row", "column"), [(0, 60, 7), (1, 69, 95), (2, 3, 69)])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_weights_spread_as_they_do_in_eager(backend, bad, layer, row, column, own):
    """Zero slopes of relu do not hide them, although zeros are skipped where weights are finite."""
    x, v, net = wide_case(3, 9, "relu,relu,identity", own=own, dtype=torch.float32)
    net.weights[layer][row, column] = bad
    expected = net_jvp(x, v, net, full=True, backend="reference")
    for found, e in zip(net_jvp(x, v, net, full=True, backend=backend), expected):
        assert torch.equal(found.isfinite(), e.isfinite())


@pytest.mark.parametrize("names", ["tanh,maxmin,identity", "relu,relu,sigmoid"])
def test_shared_probes_have_the_bits_of_own(backend, names):
    if backend == "reference":
        pytest.skip("a library's products may depend on the shape")
    x, v, net = wide_case(5, 7, names, dtype=torch.float32)
    shared = net_jvp(x, v, net, full=True, backend=backend)
    own = net_jvp(x, v.expand(5, -1, -1).contiguous(), net, full=True, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(shared, own))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("precision", "allowed"), [("tf32", 3e-3), ("bf16", 5e-2)])
def test_lower_precisions(backend, precision, allowed, own):
    x, v, net = wide_case(3, 6, "tanh,silu,sigmoid", own=own, dtype=torch.float32)
    exact = net_jvp(x, v, net, full=True, backend="reference")
    found = net_jvp(x, v, net, full=True, precision=precision, backend=backend)
    for f, e in zip(found, exact):
        assert (f - e).abs().max() <= allowed * e.abs().max()


def test_inputs_that_require_grad():
    x, v, net = case(2, 2)
    with pytest.raises(RuntimeError, match="net_jvp is not differentiable; use backend="):
        net_jvp(x.requires_grad_(), v, net)
    assert torch.autograd.gradcheck(
        lambda x, v: net_jvp(x, v, net, full=True, backend="reference"), (x, v.requires_grad_())
    )


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 11), r"v must be \[K, 12\] or \[3, K, 12\], got \[5, 11\]"),
        ((2, 5, 12), r"v must be \[K, 12\] or \[3, K, 12\], got \[2, 5, 12\]"),
        ((12,), r"v must be \[K, 12\] or \[3, K, 12\], got \[12\]"),
    ],
)
def test_errors_say_what_came_and_what_to_do(shape, message):
    x, _, net = case()
    with pytest.raises(ValueError, match=message):
        net_jvp(x, torch.zeros(shape, dtype=torch.float64), net)


@pytest.mark.parametrize("widths", [(3, 0), (3, 0, 4)])
def test_probes_that_meet_no_unit_are_looked_at_all_the_same(backend, widths):
    names = ",".join(["identity"] * (len(widths) - 1))
    weights = [torch.zeros(rows, columns) for columns, rows in pairwise(widths)]
    net = Network.mlp(weights, [None] * len(weights), names)
    probes = torch.zeros(2, 8, 3)
    probes[1, 2, 0] = math.nan
    _, sq = net_jvp(torch.ones(2, 3), probes, net, backend=backend)
    assert sq[1].isnan().all()
    assert (sq[0] == 0).all()

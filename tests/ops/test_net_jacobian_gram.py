"""net_jacobian_gram: J Jᵀ against autograd's Jacobian, wide and narrow, whitened and bare."""

import math

import pytest
import torch
from torch.autograd.functional import jacobian

import vaefast as vf
from vaefast.bench.cases import ACTIVATIONS, images, network
from vaefast.ops import net_forward, net_jacobian_gram, net_jvp, net_vjp
from vaefast.reference.net_jacobian_gram import first_factor
from vaefast.types import Network

WIDE, NARROW = (12, 8, 6, 4), (5, 8, 6, 4)  # D above H₁: the triangular factor; below: W₁ itself


def case(B=3, widths=WIDE, names="tanh,silu,identity"):
    generator = torch.Generator().manual_seed(3)
    inv_std = 0.1 + torch.rand(B, widths[-1], generator=generator, dtype=torch.float64)
    return images(B, widths[0], dtype=torch.float64).x, network(widths, names), inv_std


def jacobians(x, net):
    """J at each row of x, [B, d, D]."""
    return torch.stack(
        [jacobian(lambda t: net_forward(t[None], net, backend="reference")[0], row) for row in x]
    )


@pytest.mark.parametrize("widths", [WIDE, NARROW])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value(backend, name, widths):
    x, net, inv_std = case(widths=widths, names=f"{name},{name},{name}")
    J = jacobians(x, net)
    bare = net_jacobian_gram(x, net, backend=backend)
    torch.testing.assert_close(bare, J @ J.mT, rtol=1e-10, atol=1e-12)
    J = inv_std[:, :, None] * J
    whitened = net_jacobian_gram(x, net, inv_std=inv_std, backend=backend)
    torch.testing.assert_close(whitened, J @ J.mT, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("widths", [(7, 3), (3, 7), (1, 1)])
def test_one_layer(backend, widths):
    x, net, _ = case(2, widths, "sigmoid")
    J = jacobians(x, net)
    torch.testing.assert_close(net_jacobian_gram(x, net, backend=backend), J @ J.mT)


@pytest.mark.parametrize("widths", [WIDE, NARROW])
def test_three_ways_to_the_frobenius_norm_agree(backend, widths):
    x, net, _ = case(widths=widths)
    trace = net_jacobian_gram(x, net, backend=backend).diagonal(dim1=1, dim2=2).sum(1)
    _, columns = net_jvp(x, torch.eye(widths[0], dtype=torch.float64), net)
    _, rows = net_vjp(x, torch.eye(widths[-1], dtype=torch.float64), net)
    torch.testing.assert_close(trace, columns.sum(1))
    torch.testing.assert_close(trace, rows.sum(1))
    torch.testing.assert_close(trace, jacobians(x, net).square().sum((1, 2)))


def test_largest_eigenvalue_is_the_spectral_norm_squared(backend):
    x, net, _ = case()
    top = torch.linalg.eigvalsh(net_jacobian_gram(x, net, backend=backend))[:, -1]
    torch.testing.assert_close(top, torch.linalg.matrix_norm(jacobians(x, net), 2).square())


def test_symmetric_and_positive_semidefinite_even_at_low_rank(backend):
    x, net, _ = case(4, (12, 3, 8), "tanh,identity")  # rank 3 in 8 outputs
    gram = net_jacobian_gram(x, net, backend=backend)
    torch.testing.assert_close(gram, gram.mT, rtol=0, atol=1e-14)
    assert (torch.linalg.eigvalsh(gram) >= -1e-12).all()


def test_triangular_factor_does_not_square_the_condition_number():
    """W₁ of condition number 1e10 in float64: W₁W₁ᵀ would lose its small direction."""
    Q = torch.linalg.qr(torch.randn(30, 2, dtype=torch.float64)).Q
    W = (Q * torch.tensor([1.0, 1e-10], dtype=torch.float64)).T.contiguous()
    assert torch.linalg.svdvals(first_factor(W))[-1].item() == pytest.approx(1e-10, rel=1e-4)
    assert first_factor(W).shape == (2, 2)


def test_float32_errs_like_float64_rounded(backend):
    widths = (200, 64, 16)
    x, net, _ = case(8, widths, "tanh,identity")
    truth = net_jacobian_gram(x, net)
    narrow = network(widths, "tanh,identity", dtype=torch.float32)
    result = net_jacobian_gram(x.float(), narrow, backend=backend)
    assert result.dtype == torch.float32
    assert (result - truth).abs().max() <= 2e-6 * truth.abs().max()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_rows_are_nan_and_the_others_are_untouched(backend, bad):
    x, net, inv_std = case()
    clean = net_jacobian_gram(x, net, inv_std=inv_std, backend=backend)
    x[0, 3] = bad
    inv_std[2, 1] = bad
    gram = net_jacobian_gram(x, net, inv_std=inv_std, backend=backend)
    assert gram[[0, 2]].isnan().all()
    torch.testing.assert_close(gram[1], clean[1])


BROAD = (200, 100, 70, 40)  # several panels and blocks of reflections, and no multiple of one
THIN = (30, 100, 70, 40)


def broad_case(B, widths=BROAD, names="tanh,maxmin,identity", dtype=torch.float64):
    x, net, inv_std = case(B, widths, names)
    weights, biases = [w.to(dtype) for w in net.weights], [b.to(dtype) for b in net.biases]
    return x.to(dtype), Network.mlp(weights, biases, names), inv_std.to(dtype)


@pytest.mark.parametrize("widths", [BROAD, THIN, (200, 130)])
@pytest.mark.parametrize("hidden", ["tanh,maxmin", "relu,relu"])
@pytest.mark.parametrize("B", [1, 3, pytest.param(50, marks=pytest.mark.slow_interpreted)])
def test_bits_depend_on_nothing_but_the_row(backend, B, widths, hidden):
    """Any cut of the batch, number of threads or repetition gives the same bits, symmetric."""
    if backend == "reference":
        pytest.skip("a library's products may depend on the shape")
    names = ",".join([*hidden.split(","), "sigmoid"][1 - len(widths) :])
    x, net, inv_std = broad_case(B, widths, names, torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            results.append(net_jacobian_gram(x, net, inv_std=inv_std, backend=backend))
    finally:
        torch.set_num_threads(before)
    whole = results[0]
    assert torch.equal(whole, whole.mT)
    for other in results[1:]:
        assert torch.equal(other, whole)
    cut = net_jacobian_gram(x[B // 2 :], net, inv_std=inv_std[B // 2 :], backend=backend)
    assert torch.equal(cut, whole[B // 2 :])


@pytest.mark.parametrize("widths", [BROAD, THIN])
@pytest.mark.parametrize(
    "names", ["tanh,silu,identity", "relu,maxmin,sigmoid", "relu,relu,identity"]
)
def test_float32_errs_at_most_twice_as_much_as_eager(backend, names, widths):
    x, net, inv_std = broad_case(20, widths, names, torch.float32)
    exact = Network([w.double() for w in net.weights], [b.double() for b in net.biases], net.layers)
    truth = net_jacobian_gram(x.double(), exact, inv_std=inv_std.double(), backend="reference")
    eager = net_jacobian_gram(x, net, inv_std=inv_std, backend="reference")
    found = net_jacobian_gram(x, net, inv_std=inv_std, backend=backend)
    allowed = 2 * (eager - truth).abs().max() + 4 * 2**-24 * truth.abs().max()
    assert (found - truth).abs().max() <= allowed


@pytest.mark.parametrize("rank", [0, 1, 33])
@pytest.mark.parametrize("names", ["tanh,silu,maxmin", "maxmin,relu,tanh"])
def test_weights_of_low_rank_strides_and_missing_biases(backend, rank, names):
    x, net, inv_std = broad_case(5, names=names)
    net.weights[0] = net.weights[0][:, :rank] @ net.weights[0][:rank]
    net = net._replace(biases=[None] * 3)
    expected = net_jacobian_gram(x, net, inv_std=inv_std, backend="reference")
    x, inv_std = (torch.stack([t, t], -1).flatten(-2)[..., ::2] for t in (x, inv_std))
    net = net._replace(weights=[w.T.contiguous().T for w in net.weights])
    found = net_jacobian_gram(x, net, inv_std=inv_std, backend=backend)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_condition_number_of_the_first_layer_is_not_squared(backend):
    """W₁ of condition number 1e10: along its small direction W₁W₁ᵀ holds only round-off."""
    Q = torch.linalg.qr(torch.randn(90, 40, dtype=torch.float64)).Q
    P = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64)).Q
    scale = torch.logspace(0, -10, 40, dtype=torch.float64)
    net = Network.mlp(
        [P @ (scale[:, None] * Q.T), P.T.contiguous()], [None, None], "identity,identity"
    )
    gram = net_jacobian_gram(torch.zeros(1, 90, dtype=torch.float64), net, backend=backend)
    torch.testing.assert_close(gram[0].diagonal(), scale.square(), rtol=1e-4, atol=0)


def first_weights(kind, H, D):
    """Float32: of an exact rank, of condition number 1e10, or rows of very different norms."""
    generator = torch.Generator().manual_seed(6)
    W = torch.randn(H, D, generator=generator, dtype=torch.float64)
    if kind == "ill-conditioned":
        U, S, V = torch.linalg.svd(W, full_matrices=False)
        W = U @ (torch.logspace(0, -10, len(S), dtype=torch.float64)[:, None] * V)
    elif kind == "graded":
        W *= torch.logspace(5, -5, H, dtype=torch.float64)[:, None]
    else:
        W = (4 * W).round()[:, :kind] @ (4 * W).round()[:kind]
    return W.float()


@pytest.mark.parametrize("kind", [0, 1, 33, "ill-conditioned", "graded"])
def test_float32_factor_of_any_weights(backend, kind):
    """J = W₁, so the Gram is F Fᵀ: each element errs little beside the norms of its two rows."""
    W, eye = first_weights(kind, 150, 900), torch.eye(150)
    net = Network.mlp([W, eye], [None, None], "identity,identity")
    truth = W.double() @ W.double().T
    scale = truth.diagonal().sqrt()
    scale = (scale[:, None] * scale).clamp_min(1e-30)
    x = torch.zeros(1, 900)
    eager = (net_jacobian_gram(x, net, backend="reference")[0] - truth) / scale
    found = (net_jacobian_gram(x, net, backend=backend)[0] - truth) / scale
    assert found.abs().max() <= 2 * eager.abs().max() + 4 * 2**-24


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("widths", [BROAD, THIN])
def test_bad_first_weights_leave_nothing_finite(backend, widths, bad):
    x, net, inv_std = broad_case(3, widths, "tanh,tanh,identity")
    net.weights[0][50, 7] = bad
    gram = net_jacobian_gram(x, net, inv_std=inv_std, backend=backend)
    assert not gram.isfinite().any()


@pytest.mark.parametrize("widths", [BROAD, THIN])
@pytest.mark.parametrize(("layer", "row", "column"), [(0, 60, 7), (1, 69, 95)])
def test_bad_weights_spread_as_they_do_in_eager(backend, layer, row, column, widths):
    """Zero slopes of relu do not hide them, although zeros are skipped where weights are finite."""
    x, net, inv_std = broad_case(3, widths, "relu,relu,identity", torch.float32)
    net.weights[layer][row, column] = math.nan
    expected = net_jacobian_gram(x, net, inv_std=inv_std, backend="reference")
    found = net_jacobian_gram(x, net, inv_std=inv_std, backend=backend)
    assert torch.equal(found.isfinite(), expected.isfinite())


def test_any_cut_of_the_batch_gives_the_same_rows(backend):
    x, net, inv_std = case(20)
    whole = net_jacobian_gram(x, net, inv_std=inv_std, backend=backend)
    tail = net_jacobian_gram(x[7:], net, inv_std=inv_std[7:], backend=backend)
    torch.testing.assert_close(tail, whole[7:])
    vf.set_memory(1)
    one_by_one = net_jacobian_gram(x, net, inv_std=inv_std, backend=backend)
    torch.testing.assert_close(one_by_one, whole)
    assert net_jacobian_gram(x[:0], net, backend=backend).shape == (0, 4, 4)


@pytest.mark.parametrize("widths", [BROAD, THIN, (90, 80, 150)])
@pytest.mark.parametrize(("precision", "allowed"), [("ieee", 2e-6), ("tf32", 3e-3), ("bf16", 3e-2)])
def test_precisions_and_many_outputs(backend, precision, allowed, widths):
    """150 outputs are more columns than pass together."""
    names = "tanh,maxmin,sigmoid" if len(widths) == 4 else "tanh,sigmoid"
    x, net, inv_std = broad_case(3, widths, names, torch.float32)
    exact = net_jacobian_gram(x, net, inv_std=inv_std, backend="reference")
    found = net_jacobian_gram(x, net, inv_std=inv_std, precision=precision, backend=backend)
    assert (found - exact).abs().max() <= allowed * exact.abs().max()
    assert torch.equal(found, found.mT) or backend == "reference"
    assert (torch.linalg.eigvalsh(found.double()) >= -1e-6 * exact.abs().max()).all()


@pytest.mark.parametrize("widths", [WIDE, NARROW])
def test_inputs_that_require_grad(widths):
    x, net, inv_std = case(2, widths)
    tensors = (x, inv_std, *net.weights)
    for t in tensors:
        t.requires_grad_()
    with pytest.raises(RuntimeError, match="net_jacobian_gram is not differentiable; use backend="):
        net_jacobian_gram(x, net)

    def gram(x, inv_std, *weights):
        network = net._replace(weights=list(weights))
        return net_jacobian_gram(x, network, inv_std=inv_std, backend="reference")

    assert torch.autograd.gradcheck(gram, tensors)


@pytest.mark.parametrize(("whiten", "requires_grad"), [(False, False), (True, True)])
def test_registered_op_passes_opcheck(backend, whiten, requires_grad):
    x, net, inv_std = case()
    x.requires_grad_(requires_grad)
    arguments = (x, *net, inv_std if whiten else None, "ieee", 0, backend)
    torch.library.opcheck(torch.ops.vaefast.net_jacobian_gram.default, arguments)


def test_inv_std_of_the_wrong_shape_is_refused():
    x, net, _ = case()
    with pytest.raises(ValueError, match=r"inv_std must be \[3, 4\] beside x, got \[4\]"):
        net_jacobian_gram(x, net, inv_std=torch.ones(4, dtype=torch.float64))

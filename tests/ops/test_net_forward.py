"""net_forward: the network's definition, its derivative, bad rows, and any cut of the batch."""

import math

import pytest
import torch
import torch.nn.functional as F

import vaefast as vf
from vaefast.bench.cases import ACTIVATIONS, network
from vaefast.ops import net_forward

WIDTHS = (4, 6, 8, 10)
BY_TORCH = {
    "identity": lambda a: a,
    "relu": F.relu,
    "leaky_relu:0.1": lambda a: F.leaky_relu(a, 0.1),
    "elu:0.7": lambda a: F.elu(a, 0.7),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda a: F.gelu(a, approximate="tanh"),
    "maxmin": lambda a: a.unflatten(-1, (-1, 2)).sort(descending=True).values.flatten(-2),
    "exp_half": lambda a: torch.exp(a / 2),
    "clamp:-0.8:1.1": lambda a: a.clamp(-0.8, 1.1),
    "hardswish": F.hardswish,
    "mish": F.mish,
    "selu": F.selu,
}


def by_torch(z, net):
    for weight, bias, name in zip(net.weights, net.biases, net.activations):
        a = z @ weight.T
        z = BY_TORCH[name](a if bias is None else a + bias)
    return z


def latents(N=5, d=4, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, d, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_is_torch_s(backend, name):
    net = network(WIDTHS, f"{name},{name},{name}")
    expected = by_torch(latents(), net)
    torch.testing.assert_close(
        net_forward(latents(), net, backend=backend), expected, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("widths", [(1, 1), (4, 6), (32, 64, 50), (3, 5, 4, 7, 6, 10)])
@pytest.mark.parametrize("N", [0, 1, 65])
def test_any_depth_and_size(backend, widths, N):
    net = network(widths, ",".join(["tanh"] * (len(widths) - 2) + ["sigmoid"]))
    result = net_forward(latents(N, widths[0]), net, backend=backend)
    assert result.shape == (N, widths[-1])
    torch.testing.assert_close(result, by_torch(latents(N, widths[0]), net))


def test_missing_biases_are_zero_and_strides_do_not_matter(backend):
    net = network(WIDTHS, "tanh,relu,identity")
    bare = net._replace(biases=[None, net.biases[1], None])
    wide = latents(10, 8)
    result = net_forward(wide[::2, ::2], bare, backend=backend)
    torch.testing.assert_close(result, by_torch(wide[::2, ::2].contiguous(), bare))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "maxmin"])
def test_a_bad_row_is_nan_and_the_others_are_untouched(backend, name, bad):
    net, z = network(WIDTHS, f"{name},{name},{name}"), latents()
    clean = net_forward(z, net, backend=backend)
    z[3, 1] = bad
    result = net_forward(z, net, backend=backend)
    assert result[3].isnan().all()
    others = [0, 1, 2, 4]
    torch.testing.assert_close(result[others], clean[others], rtol=1e-12, atol=1e-12)


def test_any_cut_of_the_batch_gives_the_same_rows(backend):
    net, z = network(WIDTHS, "tanh,silu,sigmoid"), latents(70)
    whole = net_forward(z, net, backend=backend)
    parts = [net_forward(z[rows], net, backend=backend) for rows in (slice(0, 13), slice(13, 70))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-13, atol=1e-13)
    vf.set_memory(1)
    one_by_one = net_forward(z, net, backend=backend)
    torch.testing.assert_close(one_by_one, whole, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("missing", [False, True])
def test_derivative_in_inputs_weights_and_biases(backend, by_name, missing):
    net, z = network(WIDTHS, "tanh,relu,sigmoid"), latents().requires_grad_()
    if missing:
        net.biases[1] = None
    tensors = [z, *net.weights, *(b for b in net.biases if b is not None)]
    for t in tensors:
        t.requires_grad_()
    u = latents(5, 10, seed=2)
    result = net_forward(z, net, backend=backend if by_name else None)
    found = torch.autograd.grad(result, tensors, u)
    expected = torch.autograd.grad(by_torch(z, net), tensors, u)
    torch.testing.assert_close(found, expected)


def test_second_derivatives_are_the_reference_s_and_never_silently_zero():
    net, z = network((2, 3, 2), "tanh,sigmoid"), latents(2, 2).requires_grad_()
    with pytest.raises(RuntimeError, match="net_forward is differentiable once; use backend="):
        torch.autograd.grad(net_forward(z, net).sum(), z, create_graph=True)
    assert torch.autograd.gradgradcheck(lambda z: net_forward(z, net, backend="reference"), z)
    with vf.use_backend("reference"):
        assert torch.autograd.gradgradcheck(lambda z: net_forward(z, net), z)


@pytest.mark.parametrize("grad", [False, True])
def test_registered_op_passes_opcheck(backend, grad):
    net, z = network(WIDTHS, "tanh,maxmin,sigmoid"), latents().requires_grad_(grad)
    biases = [None, net.biases[1], None]
    arguments = (z, net.weights, biases, net.layers, None, grad, "ieee", 0, backend)
    torch.library.opcheck(torch.ops.vaefast.net_forward.default, arguments)


@pytest.mark.parametrize("grad", [False, True])
def test_compiles_without_graph_breaks_or_recompiling(backend, grad):
    torch._dynamo.reset()
    net = network(WIDTHS, "tanh,relu,sigmoid")
    compiled = torch.compile(net_forward, fullgraph=True, backend="aot_eager", dynamic=False)
    for seed in (0, 1):
        z = latents(seed=seed).requires_grad_(grad)
        with torch._dynamo.config.patch(error_on_recompile=seed > 0):
            result = compiled(z, net)
        torch.testing.assert_close(result, by_torch(z, net))
        if grad:
            found = torch.autograd.grad(result.sum(), z)
            torch.testing.assert_close(found, torch.autograd.grad(by_torch(z, net).sum(), z))


def change(**changes):
    return network(WIDTHS, "tanh,maxmin,sigmoid")._replace(**changes)


@pytest.mark.parametrize(
    ("z", "net", "error", "message"),
    [
        ("no", change(), TypeError, "z must be a torch.Tensor, got str"),
        (torch.zeros(5), change(), ValueError, r"z must be \[N, d\], got \[5\]"),
        (torch.zeros(5, 4).long(), change(), TypeError, r"z must be .*, got int64; pass z.float"),
        (torch.zeros(5, 3).double(), change(), ValueError, r"net.weights\[0\] must be \[out, in\]"),
        (torch.zeros(5, 4), change(), TypeError, r"net.weights\[0\] must be float32 like z"),
        (
            latents(),
            torch.nn.Linear(4, 4),
            TypeError,
            "net must be a vaefast.types.Network, got Linear",
        ),
        (
            latents(),
            change(layers=["linear tanh"] * 2),
            ValueError,
            "one weight, bias .* per layer",
        ),
        (
            latents(),
            change(layers=["linear tanh", "linear no", "linear relu"]),
            ValueError,
            "activations must be among",
        ),
        (latents(), change(biases=[None, torch.zeros(3), None]), ValueError, r"net.biases\[1\]"),
    ],
)
def test_errors_say_what_came_and_what_to_do(z, net, error, message):
    with pytest.raises(error, match=message):
        net_forward(z, net)


def test_maxmin_needs_pairs():
    net = network((4, 5, 3), "maxmin,identity")
    with pytest.raises(ValueError, match="layer 0 must have an even width, got 5"):
        net_forward(latents(), net)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_missing_backends_say_so(dtype):
    reason = vf.supports("net_forward", "cpp", dtype=dtype).reason
    assert 'backend "cpp" takes float32 or float64' in reason
    net = network(WIDTHS, "tanh,relu,sigmoid", dtype=dtype)
    with pytest.raises(TypeError, match="takes float32 or float64"):
        net_forward(latents().to(dtype), net, backend="cpp")

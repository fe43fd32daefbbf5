"""net_potential: minus the log-joint with all its constants, and its gradient."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal

import vaefast as vf
from vaefast.bench.cases import ACTIVATIONS, network, posterior
from vaefast.ops import log_likelihood, net_forward, net_potential
from vaefast.types import LIKELIHOODS, Network

STD = 0.4


def like(likelihood):
    """The likelihood's name and parameters."""
    return {
        "likelihood": likelihood,
        "likelihood_params": [STD] if likelihood == "gaussian" else [],
    }


def energy(z, x, net, likelihood):
    """−log p(x | net(z)) − log N(z; 0, I), one row of z per row of x."""
    out = net_forward(z, net, backend="reference")
    logp, _ = log_likelihood(out, x, **like(likelihood), backend="reference")
    return -logp - Normal(0.0, 1.0).log_prob(z).sum(1)


def potential(case, likelihood="bernoulli", **options):
    return net_potential(*case, **like(likelihood), **options)


def test_value_by_torch_distributions(backend):
    case = posterior(3, 2)
    x = (case.x > 0.5).double()
    U, _ = net_potential(case.z, x, case.net, likelihood="bernoulli", backend=backend)
    out = net_forward(case.z, case.net)
    logp = Bernoulli(logits=out).log_prob(x.repeat_interleave(2, 0)).sum(1)
    prior = Normal(0.0, 1.0).log_prob(case.z).sum(1)
    torch.testing.assert_close(U, -logp - prior)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("C", [1, 3])
def test_value_and_gradient_by_autograd(backend, likelihood, C):
    case = posterior(3, C)
    U, grad = potential(case, likelihood, backend=backend)
    assert U.dtype == torch.float64
    z = case.z.requires_grad_()
    expected = energy(z, case.x, case.net, likelihood)
    torch.testing.assert_close(U, expected.detach(), rtol=1e-12, atol=1e-12)
    (derivative,) = torch.autograd.grad(expected.sum(), z)
    torch.testing.assert_close(grad, derivative, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradient_through_every_activation(backend, name):
    case = posterior(2, 2, activations=f"{name},{name},identity")
    _, grad = potential(case, "gaussian", backend=backend)
    z = case.z.requires_grad_()
    (derivative,) = torch.autograd.grad(energy(z, case.x, case.net, "gaussian").sum(), z)
    torch.testing.assert_close(grad, derivative, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("widths", [(1, 1), (2, 5), (32, 64, 64, 100)])
def test_sizes(backend, widths):
    names = ",".join(["tanh"] * (len(widths) - 2) + ["identity"])
    for B, C in ((0, 1), (1, 1), (5, 4)):
        case = posterior(B, C, widths=widths, activations=names)
        U, grad = potential(case, backend=backend)
        torch.testing.assert_close(U, energy(case.z, case.x, case.net, "bernoulli"))
        assert grad.shape == (B * C, widths[0])


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_float32_stays_within_round_off(backend, likelihood):
    wide = posterior(8, 1, widths=(16, 64, 64, 784), activations="tanh,tanh,identity")
    U, grad = potential(wide, likelihood, backend="reference")
    net = Network([w.float() for w in wide.net.weights], [b.float() for b in wide.net.biases],
              wide.net.layers)  # fmt: skip
    narrow = net_potential(wide.z.float(), wide.x.float(), net, **like(likelihood), backend=backend)
    assert narrow[0].dtype == torch.float64
    assert narrow[1].dtype == torch.float32
    assert ((narrow[0] - U) / U).abs().max() <= 2e-6
    assert (narrow[1] - grad).abs().max() <= 2e-5 * grad.abs().max()


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_reference_never_computes_in_less_than_the_input_dtype(precision):
    case = posterior()
    torch.testing.assert_close(
        potential(case, precision=precision, backend="reference"),
        potential(case, backend="reference"),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_bad_rows_are_nan_and_the_others_are_untouched(backend, likelihood, bad):
    case = posterior(3, 2)
    clean = potential(case, likelihood, backend=backend)
    case.z[0, 1] = bad
    case.x[2, 4] = bad
    U, grad = potential(case, likelihood, backend=backend)
    for result, before in zip((U, grad), clean):
        assert result[[0, 4, 5]].isnan().all()
        torch.testing.assert_close(result[1:4], before[1:4])


def test_any_cut_of_the_batch_gives_the_same_rows(backend):
    case = posterior(9, 3)
    whole = potential(case, backend=backend)
    tail = potential(case._replace(z=case.z[12:], x=case.x[4:]), backend=backend)
    torch.testing.assert_close(tail, tuple(t[12:] for t in whole))
    vf.set_memory(1)
    torch.testing.assert_close(potential(case, backend=backend), whole)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_differentiable_once_in_everything(backend, likelihood):
    case = posterior(2, 2)
    tensors = [case.z, case.x, *case.net.weights, *case.net.biases]
    for t in tensors:
        t.requires_grad_()
    U, grad = potential(case, likelihood)
    expected = energy(case.z, case.x, case.net, likelihood)
    (slope,) = torch.autograd.grad(expected.sum(), case.z, create_graph=True)
    both = torch.autograd.grad(U.sum() + grad.square().sum(), tensors)
    torch.testing.assert_close(
        both, torch.autograd.grad(expected.sum() + slope.square().sum(), tensors)
    )
    with pytest.raises(RuntimeError, match="net_potential is differentiable once"):
        torch.autograd.grad(potential(case, likelihood)[0].sum(), case.z, create_graph=True)


def test_derivative_in_the_latents_alone_is_the_returned_gradient(backend):
    case = posterior(2, 2)
    U, grad = potential(case._replace(z=case.z.requires_grad_()))
    upstream = torch.tensor([1.0, -2.0, 0.0, 0.5], dtype=torch.float64)
    (derivative,) = torch.autograd.grad(U, case.z, upstream)
    assert torch.equal(derivative, upstream[:, None] * grad)


def test_reference_is_differentiable_twice():
    case = posterior(2, 1, widths=(2, 3, 3), activations="tanh,identity")
    case.z.requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda z: potential(case._replace(z=z), backend="reference")[0], case.z
    )


def test_compiles_without_graph_breaks_or_recompiling(backend):
    torch._dynamo.reset()
    compiled = torch.compile(net_potential, fullgraph=True, backend="aot_eager", dynamic=False)
    net = network((3, 8, 10), "tanh,identity")
    for seed in (0, 1):
        z, x, _ = posterior(seed=seed)
        with torch._dynamo.config.patch(error_on_recompile=seed > 0):
            result = compiled(z, x, net, likelihood="bernoulli")
        torch.testing.assert_close(result, net_potential(z, x, net, likelihood="bernoulli"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"z": torch.zeros(6, 4).double()},
            ValueError,
            r"net.weights\[0\] must be \[out, in\] with 4",
        ),
        ({"x": torch.zeros(3, 9).double()}, ValueError, r"x must be \[B, D\] with 10 columns"),
        ({"x": torch.zeros(4, 10).double()}, ValueError, "C for each of the 4 rows of x, got 6"),
        ({"x": torch.zeros(3, 10)}, TypeError, "x must be float64 like z, got float32"),
        ({"precision": "fp8"}, ValueError, "precision must be one of 'ieee', 'tf32', 'bf16'"),
        ({"likelihood": "beta"}, ValueError, "likelihood must be one of"),
    ],
)
def test_errors_say_what_came_and_what_to_do(change, error, message):
    with pytest.raises(error, match=message):
        net_potential(**{**posterior()._asdict(), "likelihood": "bernoulli", **change})

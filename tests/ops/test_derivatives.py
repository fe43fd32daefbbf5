"""Derivatives of the once-differentiable ops: by no reference, and right for every activation."""

import pytest
import torch

import vaefast as vf
from vaefast.bench.cases import ACTIVATIONS, posterior
from vaefast.ops import log_likelihood, net_forward, net_potential
from vaefast.types import LIKELIHOODS

STD = 0.4


def like(likelihood):
    """The likelihood's name and parameters."""
    return {
        "likelihood": likelihood,
        "likelihood_params": [STD] if likelihood == "gaussian" else [],
    }


def leaves(case):
    tensors = [case.z, case.x, *case.net.weights, *case.net.biases]
    return [t.requires_grad_() for t in tensors]


def both(case, likelihood, **options):
    """A scalar of the energy and its gradient that weighs rows and latents differently."""
    U, grad = net_potential(*case, **like(likelihood), **options)
    rows = torch.arange(1, len(U) + 1, dtype=U.dtype)
    return (rows * U).sum() + (rows[:, None] * grad.sin()).sum()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("chunked", [False, True])
def test_potential_through_every_activation(name, chunked):
    case = posterior(3, 2, activations=f"{name},{name},identity")
    tensors = leaves(case)
    value = both(case, "bernoulli")
    vf.set_memory(1 if chunked else 1 << 30)
    found = torch.autograd.grad(value, tensors)
    expected = torch.autograd.grad(both(case, "bernoulli", backend="reference"), tensors)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_potential_through_every_likelihood(likelihood):
    case = posterior(3, 2)
    tensors = leaves(case)
    found = torch.autograd.grad(both(case, likelihood), tensors)
    expected = torch.autograd.grad(both(case, likelihood, backend="reference"), tensors)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("size", [1e-3, 0.5, 5.0, 40.0, 1e3])
def test_likelihood_at_every_size_of_logit(likelihood, size):
    out = size * torch.tensor([[-1.0, -0.7, 0.0, 0.3, 1.0]], dtype=torch.float64)
    x = torch.tensor([[0.0, 0.2, 0.5, 0.9, 1.0]], dtype=torch.float64)
    tensors = [out.requires_grad_(), x.requires_grad_()]

    def scalar(**options):
        logp, slope = log_likelihood(out, x, **like(likelihood), **options)
        return logp.sum() + (slope * torch.arange(5)).sum()

    found = torch.autograd.grad(scalar(), tensors)
    expected = torch.autograd.grad(scalar(backend="reference"), tensors)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_no_backward_runs_a_reference(break_references):
    case = posterior(3, 2)
    tensors = leaves(case)
    energy, out = both(case, "bernoulli"), net_forward(case.z, case.net)
    logp = log_likelihood(out, case.x, likelihood="bernoulli")
    break_references()
    torch.autograd.grad(energy, tensors)
    torch.autograd.grad(logp[0].sum() + logp[1].square().sum(), tensors)


def test_derivative_in_the_inputs_alone_is_the_registered_product():
    """What attacks need of a lowered encoder is an op, so its rows do not depend on the batch."""
    case = posterior(3, 2)
    out = net_forward(case.z.requires_grad_(), case.net)
    with torch.profiler.profile() as profile:
        torch.autograd.grad(out.sum(), case.z)
    assert "vaefast::net_vjp" in {event.key for event in profile.key_averages()}

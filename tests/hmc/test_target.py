"""Potentials and trajectories of both paths: gradient, reversibility, volume, energy error."""

import itertools
import math

import pytest
import torch
from torch import nn

from vaefast.hmc.target import GenericTarget, NetworkTarget
from vaefast.models import lowering
from vaefast.models.example import Example
from vaefast.models.forms import Forms

LIKELIHOODS = ("bernoulli", "gaussian", "continuous_bernoulli", "clamped_bernoulli")


def pixels(rows=2, D=6):
    return torch.rand(rows, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def target(vae, x, *, generic, inv_mass=None, leapfrog=5):
    shared = {"x": x, "likelihood": vae.likelihood, "inv_mass": inv_mass, "leapfrog": leapfrog}
    if generic:
        forms = Forms(vae, Example(x, x.new_zeros(2, 2), None))
        return GenericTarget(forms=forms, backend=None, **shared)
    return NetworkTarget(
        net=lowering.decoder(vae),
        likelihood_params=vae.likelihood_params,
        precision="ieee",
        backend=None,
        **shared,
    )


def state(rows, d=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, rows, d, generator=generator, dtype=torch.float64)


@pytest.fixture(params=[False, True], ids=["mlp", "generic"])
def generic(request):
    return request.param


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_potential_and_its_gradient(mlp_vae, generic, likelihood):
    vae, x = mlp_vae(likelihood), pixels()
    with torch.no_grad():
        U, grad = target(vae, x, generic=generic).potential(state(4)[0])  # two chains a row
    z = state(4)[0].requires_grad_()
    out, x = vae.decode(z), x.repeat_interleave(2, 0)
    if likelihood == "gaussian":
        logp = torch.distributions.Normal(out, 0.5).log_prob(x)
    elif likelihood == "continuous_bernoulli":
        logp = torch.distributions.ContinuousBernoulli(logits=out).log_prob(x)
    else:
        logp = x * torch.sigmoid(out).log() + (1 - x) * torch.sigmoid(-out).log()
    expected = -logp.sum(1) + 0.5 * z.square().sum(1) + math.log(2 * math.pi)
    torch.testing.assert_close(U, expected.detach(), rtol=1e-9, atol=1e-9)
    assert U.dtype == torch.float64
    (derivative,) = torch.autograd.grad(expected.sum(), z)
    torch.testing.assert_close(grad, derivative, rtol=1e-7, atol=1e-7)


def test_a_learned_prior_enters_the_energy(mlp_vae):
    """A mixture with parameters, given as a plain function; none of them gets .grad."""
    centre = nn.Parameter(torch.tensor([[1.0, -1.0], [0.0, 2.0]]).double())

    def log_prior(z):
        return torch.logsumexp(-0.5 * (z[:, None] - centre).square().sum(2), 1)

    vae = mlp_vae(generic=True, prior=log_prior)
    plain = mlp_vae(generic=True)
    z = state(2)[0]
    U, grad = target(vae, pixels(), generic=True).potential(z)
    U_plain, grad_plain = target(plain, pixels(), generic=True).potential(z)
    z = z.requires_grad_()
    difference = plain.log_prior(z) - log_prior(z)
    torch.testing.assert_close(U - U_plain, difference.detach())
    (derivative,) = torch.autograd.grad(difference.sum(), z)
    torch.testing.assert_close(grad - grad_plain, derivative)
    assert centre.grad is None


@pytest.mark.parametrize("mass", [False, True])
def test_a_trajectory_is_reversible(mlp_vae, generic, mass):
    inv_mass = torch.tensor([[0.3, 2.0], [1.0, 0.7]]).double() if mass else None
    moving = target(mlp_vae(), pixels(), generic=generic, inv_mass=inv_mass, leapfrog=9)
    z, p = state(2)
    step = torch.tensor([0.1, 0.2]).double()
    U, grad = moving.potential(z)
    z_end, p_end, grad_end, U_end = moving.trajectory()(z, p, grad, step=step)
    back, p_back, grad_back, U_back = moving.trajectory()(z_end, -p_end, grad_end, step=step)
    assert (z_end - z).abs().min() > 1e-3
    for there, again in ((z, back), (p, -p_back), (grad, grad_back), (U, U_back)):
        torch.testing.assert_close(there, again, rtol=1e-9, atol=1e-9)
    for carried, fresh in zip((U_end, grad_end), moving.potential(z_end)):
        torch.testing.assert_close(carried, fresh, rtol=1e-12, atol=1e-12)


def test_a_trajectory_leaves_its_start_alone(mlp_vae, generic):
    moving = target(mlp_vae(), pixels(), generic=generic)
    z, p = state(2)
    grad = moving.potential(z)[1]
    before = z.clone(), p.clone(), grad.clone()
    moving.trajectory()(z, p, grad, step=torch.full((2,), 0.1).double())
    assert all(torch.equal(a, b) for a, b in zip(before, (z, p, grad)))


def test_energy_error_falls_with_the_square_of_the_step(mlp_vae, generic):
    vae, (z, p) = mlp_vae(), state(2)
    errors = []
    for leapfrog in (20, 40, 80):
        moving = target(vae, pixels(), generic=generic, leapfrog=leapfrog)
        U, grad = moving.potential(z)
        step = torch.full((2,), 1.0 / leapfrog).double()
        _, p_end, _, U_end = moving.trajectory()(z, p, grad, step=step)
        error = U_end + 0.5 * p_end.square().sum(1) - U - 0.5 * p.square().sum(1)
        errors.append(error.abs().mean())
    for coarse, fine in itertools.pairwise(errors):
        assert 3.5 < coarse / fine < 4.5


def test_a_trajectory_preserves_volume(mlp_vae):
    moving = target(mlp_vae(), pixels(1), generic=True, leapfrog=4)

    def flow(start):
        z, p = start[:2][None], start[2:][None]
        grad = moving.potential(z)[1]
        z, p, *_ = moving.trajectory()(z, p, grad, step=torch.full((1,), 0.3).double())
        return torch.cat((z[0], p[0]))

    at, eps = torch.tensor([0.3, -0.2, 0.5, 1.0]).double(), 1e-5
    with torch.no_grad():
        columns = [(flow(at + eps * e) - flow(at - eps * e)) / (2 * eps) for e in torch.eye(4)]
    assert abs(torch.linalg.det(torch.stack(columns)) - 1) < 1e-6

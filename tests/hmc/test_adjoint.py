"""The gradient through a chain is autograd's through the reference chain, rejections included."""

import pytest
import torch

from vaefast.bench.cases import posterior
from vaefast.functional.chain import chain
from vaefast.functional.hmc import Draws, State
from vaefast.hmc.adaptation import DualAveraging
from vaefast.hmc.adjoint import pull_back, recorded
from vaefast.hmc.target import NetworkTarget
from vaefast.reference.net_potential import Target
from vaefast.reference.net_trajectory import on_target
from vaefast.types import LIKELIHOODS

NETWORKS = {
    "mlp": ((4, 12, 9), "tanh,identity"),
    "smooth": ((4, 10, 8, 9), "gelu,mish,identity"),
    "convolutional": ((5, 72), "mixed"),
}
BACKENDS = ["reference", None]  # None: the fast one of the device
T, L, WIDE = 7, 5, 0.5  # a step size at which some transitions are rejected


def problem(shape, likelihood, massive=True, backend=None, dtype=torch.float64):
    widths, activations = NETWORKS[shape]
    z, x, net = posterior(3, 2, widths=widths, activations=activations, dtype=dtype)
    if net.activations[-1] == "sigmoid" and likelihood != "gaussian":
        net = net.with_epilogue("identity")
    mass = None
    if massive:
        mass = torch.linspace(0.5, 1.5, 3 * z.shape[1], dtype=dtype).view(3, -1)
    params = (0.7,) if likelihood == "gaussian" else ()
    target = NetworkTarget(x, net, likelihood, params, mass, L, "ieee", backend)
    return target, State(z, *target.potential(z))


def differentiated(target, z, draws, step, upstream):
    """Autograd through the reference chain."""
    z, x = z.clone().requires_grad_(), target.x.clone().requires_grad_()
    parameters = [torch.tensor(p, dtype=z.dtype) for p in target.likelihood_params]
    plain = Target(x, target.net, target.likelihood, parameters)
    start = z, *plain.energy_and_gradient(z)
    moves = on_target(plain, target.inv_mass, None, L)
    options = {"jitter": draws.jitter, "seed": draws.seed, "index": draws.index}
    run = chain(moves, *start, step=step, inv_mass=target.inv_mass, steps=T, **options)
    return run, torch.autograd.grad(run.z, (z, x), upstream)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("shape", NETWORKS)
@pytest.mark.parametrize("chosen", BACKENDS)
def test_gradient_is_autograds(shape, likelihood, chosen):
    target, state = problem(shape, likelihood, backend=chosen)
    draws = Draws(torch.arange(3) + 5, seed=2, jitter=0.2)
    step, upstream = torch.tensor([WIDE, 0.1, WIDE], dtype=torch.float64), state.z.sin() + 1
    run, path = recorded(target, state, draws, step, steps=T)
    plain, wanted = differentiated(target, state.z, draws, step, upstream)
    assert torch.equal(run.accepted, plain.accepted)
    assert 0 < run.accepted.sum() < T * len(state.z)  # some moved, some were rejected
    torch.testing.assert_close(run.z, plain.z, rtol=1e-10, atol=1e-10)
    for found, want in zip(pull_back(path, upstream), wanted):
        torch.testing.assert_close(found, want, rtol=1e-8, atol=1e-8 * want.abs().max().item())


@pytest.mark.parametrize("chosen", BACKENDS)
def test_parts_of_a_chain_are_pulled_back_one_after_the_other(chosen):
    target, state = problem("mlp", "bernoulli", massive=False, backend=chosen)
    draws, step = Draws(torch.arange(3)), torch.full((3,), 0.3, dtype=torch.float64)
    upstream = state.z.cos()
    whole = pull_back(recorded(target, state, draws, step, steps=6)[1], upstream)
    run, first = recorded(target, state, draws, step, steps=2)
    rest = State(run.z, run.U, run.grad)
    _, second = recorded(target, rest, draws, step, first_step=2, steps=4)
    into_z, late = pull_back(second, upstream)
    into_z, early = pull_back(first, into_z)
    torch.testing.assert_close((into_z, late + early), whole, rtol=1e-12, atol=1e-12)


def test_a_learning_step_size_is_held_at_what_it_was():
    """The path of a warm-up is that of its step sizes, one transition after the other."""
    target, state = problem("mlp", "bernoulli")
    draws, learning = Draws(torch.arange(3), seed=4), DualAveraging(torch.full((3,), 0.4))
    run, path = recorded(target, state, draws, learning, steps=T)
    again = DualAveraging(torch.full((3,), 0.4))
    together = target.run(state, draws, again, first_step=0, steps=T, thin=1)
    assert path.step.shape == (T, 3)
    assert (path.step[1:] != path.step[:-1]).any()
    torch.testing.assert_close(run, together)
    upstream = state.z.sin() + 1
    into_z, into_x = pull_back(path, upstream)
    kept = upstream
    total = torch.zeros_like(into_x)
    for t in reversed(range(T)):
        start = State(path.z[:, t], *target.potential(path.z[:, t]))
        _, part = recorded(target, start, draws, path.step[t], first_step=t, steps=1)
        kept, share = pull_back(part, kept)
        total = total + share
    torch.testing.assert_close((kept, total), (into_z, into_x))


def test_chains_that_never_moved_pass_everything_on():
    target, state = problem("mlp", "bernoulli")
    step = torch.full((3,), 50.0, dtype=torch.float64)  # diverges
    run, path = recorded(target, state, Draws(torch.arange(3)), step, steps=3)
    assert not run.accepted.any()
    upstream = state.z.sin()
    into_z, into_x = pull_back(path, upstream)
    assert torch.equal(into_z, upstream)
    assert not into_x.any()


@pytest.mark.parametrize("chosen", BACKENDS)
def test_no_transitions(chosen):
    target, state = problem("mlp", "bernoulli", backend=chosen)
    step = torch.full((3,), 0.1, dtype=torch.float64)
    for sizes in (step, DualAveraging(step)):
        run, path = recorded(target, state, Draws(torch.arange(3)), sizes, steps=0)
        into_z, into_x = pull_back(path, state.z)
        assert torch.equal(run.z, state.z)
        assert torch.equal(into_z, state.z)
        assert not into_x.any()

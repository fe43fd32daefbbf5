"""One HMC step: random numbers, the Metropolis rule, what counts as divergent, derivatives."""

import math
from types import SimpleNamespace

import pytest
import torch

from vaefast import philox
from vaefast.functional import hmc
from vaefast.functional.hmc import Draws, Noise, State, transition
from vaefast.philox import Use

B, C, d = 4, 3, 2
N = B * C


def rows(count=N):
    return torch.zeros(count, d, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)


def run(trajectory, *, inputs=B, chains=C, step=0.1, index=None, seed=9, jitter=0.0, t=5, **mass):
    """State and info side by side."""
    z, U = rows(inputs * chains)
    draws = Draws(torch.arange(inputs) if index is None else index, seed, jitter)
    steps = torch.full((inputs,), step, dtype=torch.float64)
    state, info = transition(
        State(z, U, z), trajectory, step=steps, noise=draws.noise(z, t), **mass
    )
    return SimpleNamespace(**state._asdict(), **info._asdict())


def gains(error):
    """A trajectory that ends at z = 1 with the same momentum and ``error`` more energy."""
    return lambda z, p, grad, step: (z + 1, p, grad + 2, torch.zeros(len(z)).double() + error)


class Recorder:
    """A trajectory that goes nowhere and remembers what it was given."""

    def __call__(self, z, p, grad, step):
        self.p, self.step = p, step
        return z, p, grad, torch.zeros(len(z), dtype=torch.float64)


def test_momenta_are_the_counter_based_normals_of_each_chain():
    record = Recorder()
    index = torch.tensor([7, 0, 3, 1 << 33])
    run(record, index=index, t=11, seed=-2)
    for n in range(N):
        expected = philox.normal(
            d, seed=-2, index=index[n // C][None], step=11, lane=n % C, use=Use.MOMENTUM
        )
        assert torch.equal(record.p[n], expected[0])


def test_momenta_have_the_mass_for_covariance():
    record = Recorder()
    inv_mass = torch.tensor([[0.25, 4.0]], dtype=torch.float64)
    run(record, inputs=1, chains=4000, inv_mass=inv_mass)
    variance = record.p.square().mean(0)
    standard_error = math.sqrt(2 / 4000) / inv_mass[0]
    assert ((variance - 1 / inv_mass[0]).abs() < 4 * standard_error).all()


def test_kinetic_energy_uses_the_mass():
    def halve(z, p, grad, step):
        return z, p / 2, grad, torch.zeros(len(z), dtype=torch.float64)

    inv_mass = torch.full((B, d), 4.0, dtype=torch.float64)
    record = Recorder()
    run(record, inv_mass=inv_mass)
    lost = -0.5 * 4.0 * 0.75 * record.p.square().sum(1)  # H falls: always accepted
    assert (lost < 0).all()
    assert run(halve, inv_mass=inv_mass).accepted.all()
    double = run(lambda z, p, grad, step: (z, 2 * p, grad, z[:, 0]), inv_mass=inv_mass)
    gained = 0.5 * 4.0 * 3.0 * record.p.square().sum(1)
    torch.testing.assert_close(double.accept_prob, torch.exp(-gained))


@pytest.mark.parametrize("error", [0.0, 0.2, 1.0, 3.0])
def test_acceptance_rate_is_exp_of_minus_the_error(error):
    result = run(gains(error), inputs=8000, chains=1)
    rate, expected = result.accepted.double().mean().item(), math.exp(-error)
    torch.testing.assert_close(result.accept_prob, torch.full_like(result.accept_prob, expected))
    assert abs(rate - expected) <= 4 * math.sqrt(expected * (1 - expected) / 8000)


def test_a_fall_in_energy_is_always_accepted():
    result = run(gains(-5.0))
    assert result.accepted.all()
    assert (result.accept_prob == 1).all()


def test_acceptance_compares_with_the_uniform_of_its_chain():
    index = torch.arange(B).repeat_interleave(C)
    lane = torch.arange(C).repeat(B)
    u = philox.uniform(1, seed=9, index=index, step=5, lane=lane, use=Use.ACCEPT)[:, 0]
    assert torch.equal(run(gains(0.7)).accepted, u < math.exp(-0.7))


def test_position_energy_and_gradient_move_or_stay_together():
    result = run(gains(0.7))
    assert 0 < result.accepted.sum() < N
    moved = result.accepted.double()
    assert torch.equal(result.z, moved[:, None].expand(N, d))
    assert torch.equal(result.grad, 2 * moved[:, None].expand(N, d))
    torch.testing.assert_close(result.U, 0.7 * moved)


@pytest.mark.parametrize("error", [1000.5, math.inf, -math.inf, math.nan])
def test_divergent_trajectories_are_rejected(error):
    result = run(gains(error))
    assert result.divergent.all()
    assert not result.accepted.any()
    assert (result.accept_prob == 0).all()
    assert (result.z == 0).all()
    assert (result.U == 0).all()


def test_an_error_of_999_is_only_rejected():
    result = run(gains(999.0))
    assert not result.divergent.any()
    assert not result.accepted.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_without_a_finite_energy_never_moves(bad):
    z, U = rows()
    U[4] = bad
    steps = torch.full((B,), 0.1, dtype=torch.float64)
    noise = Draws(torch.arange(B)).noise(z, 0)
    state, info = transition(State(z, U, z), gains(-1.0), step=steps, noise=noise)
    others = torch.arange(N) != 4
    assert info.divergent.tolist() == (~others).tolist()
    assert info.accepted.tolist() == others.tolist()
    assert (state.z[4] == 0).all()


def test_jitter_is_one_factor_per_input_and_transition():
    record = Recorder()
    factors = []
    for t in range(200):
        run(record, jitter=0.25, t=t)
        per_chain = record.step.view(B, C) / 0.1
        assert (per_chain == per_chain[:, :1]).all()
        factors.append(per_chain[:, 0])
    factors = torch.stack(factors)
    u = philox.uniform(1, seed=9, index=torch.arange(B), step=199, use=Use.JITTER)[:, 0]
    torch.testing.assert_close(factors[-1], 1 + 0.25 * (2 * u - 1))
    assert len(factors.unique()) == factors.numel()
    assert factors.min() >= 0.75
    assert factors.max() <= 1.25
    assert abs(factors.mean().item() - 1) <= 4 * 0.25 / math.sqrt(3 * factors.numel())


@pytest.mark.parametrize("jitter", [0.0, 0.25])
def test_the_index_of_a_transition_may_be_a_tensor(jitter):
    found, expected = Recorder(), Recorder()
    one = run(found, jitter=jitter, t=torch.tensor(2**31 + 5))
    other = run(expected, jitter=jitter, t=2**31 + 5)
    assert torch.equal(found.p, expected.p)
    assert torch.equal(found.step, expected.step)
    assert torch.equal(one.accept_prob, other.accept_prob)
    assert torch.equal(one.accepted, other.accepted)


def test_without_jitter_the_step_is_exact():
    record = Recorder()
    run(record, step=0.3)
    assert (record.step == 0.3).all()


def test_float32_states_stay_float32_and_energies_float64():
    z = torch.zeros(N, d)
    record = Recorder()
    state, info = transition(
        State(z, torch.zeros(N).double(), z), record, step=torch.full((B,), 0.1),
        inv_mass=torch.ones(B, d), noise=Draws(torch.arange(B), 0, 0.1).noise(z, 0),
    )  # fmt: skip
    assert state.z.dtype == state.grad.dtype == record.p.dtype == record.step.dtype == z.dtype
    assert state.U.dtype == info.accept_prob.dtype == info.energy_error.dtype == torch.float64


@pytest.mark.parametrize("error", [0.3, 2000.0, math.inf])
def test_the_energy_error_is_told_for_every_proposal(error):
    result = run(gains(error))
    torch.testing.assert_close(result.energy_error, torch.full((N,), error).double())
    assert result.divergent.all() == (error > 1000)


@pytest.mark.parametrize("jitter", [0.0, 0.25])
@pytest.mark.parametrize("latents", [1, 3])
def test_steps_drawn_together_have_the_noise_of_each(jitter, latents, monkeypatch):
    """Runs of 1, of 3 and of all 7 steps, the last one of a run cut short."""
    index, z = torch.tensor([7, 0, 1 << 33]), torch.zeros(6, latents)
    draws = Draws(index, -2, jitter)
    expected = [draws.noise(z, t) for t in range(11, 18)]
    for together in (1, 3 * 6 * (latents + 2), 1 << 14):
        monkeypatch.setattr(hmc, "AT_ONCE", together)
        found = list(draws.noises(z, 11, 7))
        assert len(found) == 7
        for one, other in zip(found, expected):
            assert torch.equal(one.momentum, other.momentum)
            assert torch.equal(one.acceptance, other.acceptance)
            assert (one.jitter is None) == (other.jitter is None) == (jitter == 0)
            assert jitter == 0 or torch.equal(one.jitter, other.jitter)
    assert list(draws.noises(z, 11, 0)) == []


def quartic(z):
    """U = Σ z⁴/4 + ½(Σ z)² and its gradient."""
    total = z.sum(1)
    return 0.25 * z.pow(4).sum(1) + 0.5 * total.square(), z.pow(3) + total[:, None]


def step(z, size, inv_mass, noise, **options):
    start = State(z, *quartic(z))
    return hmc.step(
        start, quartic, step=size, inv_mass=inv_mass, leapfrog=3, noise=noise, **options
    )


def inputs_of_step(chains=2):
    """Two inputs; the first chain of each accepts whatever comes, the second one rejects it."""
    generator = torch.Generator().manual_seed(3)
    z, momentum = torch.randn(2, 2 * chains, 3, generator=generator, dtype=torch.float64)
    size = torch.tensor([0.2, 0.3], dtype=torch.float64)
    inv_mass = torch.rand(2, 3, generator=generator, dtype=torch.float64) + 0.5
    acceptance = torch.tensor([0.0, 1.0] * 2, dtype=torch.float64)
    return z, size, inv_mass, momentum, acceptance


def test_a_step_is_differentiable_with_the_decision_held():
    """In the position, the step size, the mass and the momentum, against finite differences."""
    *inputs, acceptance = inputs_of_step()

    def function(z, size, inv_mass, momentum):
        state, info = step(z, size, inv_mass, Noise(momentum, acceptance))
        assert info.accepted.tolist() == [True, False] * 2
        return *state, info.accept_prob, info.energy_error

    assert torch.autograd.gradcheck(function, [t.requires_grad_() for t in inputs])


def test_a_step_is_a_transition_around_its_leapfrogs():
    z, size, inv_mass, momentum, acceptance = inputs_of_step()
    noise, start = Noise(momentum, acceptance), State(z, *quartic(z))

    def trajectory(z, p, grad, *, step):
        step, mass = step[:, None], inv_mass.repeat_interleave(2, 0)
        for _ in range(3):
            p = p - 0.5 * step * quartic(z)[1]
            z = z + step * mass * p
            p = p - 0.5 * step * quartic(z)[1]
        return z, p, quartic(z)[1], quartic(z)[0]

    expected = transition(start, trajectory, step=size, inv_mass=inv_mass, noise=noise)
    for one, other in zip(step(z, size, inv_mass, noise), expected):
        for a, b in zip(one, other):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_gradient_between_the_ends_may_be_another():
    """It serves L − 1 kicks; energies and what the state carries stay the potential's."""
    z, size, inv_mass, momentum, acceptance = inputs_of_step()
    calls = []

    def rounded(z):
        calls.append(z)
        return quartic(z)[1].mul(64).round() / 64

    noise = Noise(momentum, torch.zeros_like(acceptance))
    state, info = step(z, size, inv_mass, noise, gradient=rounded)
    assert len(calls) == 2
    assert info.accepted.all()
    for carried, fresh in zip(state[1:], quartic(state.z)):
        assert torch.equal(carried, fresh)
    exact, _ = step(z, size, inv_mass, noise)
    assert 0 < (state.z - exact.z).abs().max() < 0.05

"""One HMC transition: its random numbers, the Metropolis rule, and what counts as divergent."""

import math

import pytest
import torch

from vaefast import philox
from vaefast.functional.transition import transition
from vaefast.philox import Use

B, C, d = 4, 3, 2
N = B * C


def rows(count=N):
    return torch.zeros(count, d, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)


def run(trajectory, *, inputs=B, chains=C, step=0.1, **options):
    z, U = rows(inputs * chains)
    options = {"index": torch.arange(inputs), "t": 5, "seed": 9, **options}
    steps = torch.full((inputs,), step, dtype=torch.float64)
    return transition(trajectory, z, U, z, step=steps, **options)


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
    double = run(lambda z, p, g, s: (z, 2 * p, g, z[:, 0]), inv_mass=inv_mass)
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
    result = transition(gains(-1.0), z, U, z, step=steps, index=torch.arange(B), t=0)
    others = torch.arange(N) != 4
    assert result.divergent.tolist() == (~others).tolist()
    assert result.accepted.tolist() == others.tolist()
    assert (result.z[4] == 0).all()


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
def test_the_number_of_a_transition_may_be_a_tensor(jitter):
    found, expected = Recorder(), Recorder()
    one = run(found, jitter=jitter, t=torch.tensor(2**31 + 5))
    other = run(expected, jitter=jitter, t=2**31 + 5)
    assert torch.equal(found.p, expected.p)
    assert torch.equal(found.step, expected.step)
    assert all(torch.equal(a, b) for a, b in zip(one, other))


def test_without_jitter_the_step_is_exact():
    record = Recorder()
    run(record, step=0.3)
    assert (record.step == 0.3).all()


def test_float32_states_stay_float32_and_energies_float64():
    z = torch.zeros(N, d)
    record = Recorder()
    result = transition(
        record, z, torch.zeros(N).double(), z, step=torch.full((B,), 0.1), jitter=0.1,
        inv_mass=torch.ones(B, d), index=torch.arange(B), t=0,
    )  # fmt: skip
    assert result.z.dtype == result.grad.dtype == record.p.dtype == record.step.dtype == z.dtype
    assert result.U.dtype == result.accept_prob.dtype == torch.float64

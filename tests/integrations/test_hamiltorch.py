"""hamiltorch's call: its list, its transitions by plain leapfrogs, its laws."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from vaefast.functional.hmc import Draws
from vaefast.integrations import hamiltorch
from vaefast.integrations.hamiltorch import Sampler

COVARIANCE = torch.tensor([[2.0, 0.6, 0.0], [0.6, 0.5, 0.1], [0.0, 0.1, 1.0]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
LAW = MultivariateNormal(MEAN, COVARIANCE)
PRECISION = torch.linalg.inv(COVARIANCE)


def log_prob(point):
    delta = point - MEAN
    return -0.5 * delta @ PRECISION @ delta


def plain(start, count, leapfrogs, step, inv_mass, seed, chains=1):
    """hamiltorch's transitions: p ~ N(0, M), L leapfrogs, accept; draws after the burn-in."""
    root = torch.linalg.cholesky(inv_mass)
    z, found = start.reshape(chains, -1), []
    for noise in Draws(torch.zeros(1, dtype=torch.long), seed, 0.0).noises(z, 0, count):
        p = torch.linalg.solve(root.mT, noise.momentum.mT).mT  # of covariance M
        before = -_densities(z) + 0.5 * ((p @ inv_mass) * p).sum(1)
        moved = z
        for _ in range(leapfrogs):
            p = p - 0.5 * step * (moved - MEAN) @ PRECISION
            moved = moved + step * p @ inv_mass
            p = p - 0.5 * step * (moved - MEAN) @ PRECISION
        after = -_densities(moved) + 0.5 * ((p @ inv_mass) * p).sum(1)
        z = torch.where((noise.acceptance.log() < before - after)[:, None], moved, z)
        found.append(z)
    return found


def _densities(points):
    return torch.stack([log_prob(point) for point in points])


@pytest.mark.parametrize("chains", [None, 3])
@pytest.mark.parametrize("kind", ["unit", "diagonal", "full", "blocks"])
def test_transitions_are_plain_hmc(kind, chains):
    full = torch.tensor([[1.5, 0.3, 0.0], [0.3, 0.8, 0.0], [0.0, 0.0, 2.0]], dtype=torch.float64)
    diagonal = torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64)
    inv_mass, dense = {
        "unit": (None, torch.eye(3, dtype=torch.float64)),
        "diagonal": (diagonal, diagonal.diag()),
        "full": (full, full),
        "blocks": ([full[:2, :2], full[2:, 2:]], full),
    }[kind]
    start = torch.zeros(3, dtype=torch.float64)
    start = start if chains is None else torch.randn(chains, 3, dtype=torch.float64)
    options = {"num_steps_per_sample": 4, "step_size": 0.5, "inv_mass": inv_mass}
    draws = hamiltorch.sample(log_prob, start, 30, burn=5, seed=9, **options)
    assert isinstance(draws, list)
    assert len(draws) == 25
    assert all(draw.shape == start.shape for draw in draws)
    assert torch.equal(draws[0], start)
    expected = plain(start, 30, 4, 0.5, dense, 9, chains or 1)[6:]
    for draw, other in zip(draws[1:], expected, strict=True):
        torch.testing.assert_close(draw.reshape(other.shape), other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", [Sampler.HMC, Sampler.HMC_NUTS])
def test_the_law(sampler):
    start = torch.randn(300, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws, extra = hamiltorch.sample(
        lambda points: LAW.log_prob(points),
        start,
        90,
        6,
        0.4,
        burn=60,
        sampler=sampler,
        debug=2,
        batched=True,
        seed=1,
    )
    last = draws[-1]
    error = (last.mean(0) - MEAN) / (COVARIANCE.diagonal() / 300).sqrt()
    assert error.abs().max() < 4.0
    assert (last.T.cov() - COVARIANCE).abs().max() < 0.6
    assert 0.5 < extra <= 1.0 if sampler == Sampler.HMC else extra != 0.4


def test_gradients_of_the_callers_own():
    calls = []

    def gradient(point):
        calls.append(point.shape)
        return -(point - MEAN) @ PRECISION

    options = {"num_samples": 12, "num_steps_per_sample": 3, "step_size": 0.3, "seed": 2}
    start = torch.zeros(3, dtype=torch.float64)
    by_autograd = hamiltorch.sample(log_prob, start, **options)
    given = hamiltorch.sample(log_prob, start, pass_grad=gradient, **options)
    torch.testing.assert_close(torch.stack(given), torch.stack(by_autograd))
    assert len(calls) > 30


def test_a_function_of_one_point_may_branch_and_print_for_one_chain():
    def density(point):
        return log_prob(point) if float(point.sum()) < 1e9 else point.sum()

    assert len(hamiltorch.sample(density, torch.zeros(3, dtype=torch.float64), 5)) == 5


def test_the_generator_of_torch_decides_without_a_seed():
    start = torch.zeros(3, dtype=torch.float64)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(torch.stack(hamiltorch.sample(log_prob, start, 6)))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_mistakes():
    start = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="params_init must be"):
        hamiltorch.sample(log_prob, start[None, None])
    with pytest.raises(RuntimeError, match="burn must be less"):
        hamiltorch.sample(log_prob, start, 5, burn=5)
    with pytest.raises(RuntimeError, match="greater than 0"):
        hamiltorch.sample(log_prob, start, 5, sampler=Sampler.HMC_NUTS)
    with pytest.raises(NotImplementedError, match="got RMHMC"):
        hamiltorch.sample(log_prob, start, 5, sampler=Sampler.RMHMC)
    assert torch.equal(hamiltorch.sample(log_prob, start, 1)[0], start)

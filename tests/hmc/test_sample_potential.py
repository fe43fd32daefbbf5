"""The sampler without a VAE: against known laws, against plain HMC with the same draws."""

import math

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast import philox
from vaefast.functional.hmc import Draws
from vaefast.models import VAE
from vaefast.philox import Use

SCALES = torch.tensor([[0.02, 1.0, 5.0], [3.0, 0.5, 0.1]], dtype=torch.float64)
MEANS = torch.tensor([[1.0, -2.0, 30.0], [0.0, 5.0, 0.3]], dtype=torch.float64)


def gaussians(z, context):
    mean, scale = context["mean"], context["scale"]
    return 0.5 * ((z - mean) / scale).square().sum(1)


def conditions(dtype=torch.float64):
    return {"mean": MEANS.to(dtype), "scale": SCALES.to(dtype)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("leapfrog", [None, "quarter", "chees"])
def test_every_row_has_its_own_law_step_and_mass(leapfrog, dtype):
    z0 = torch.zeros(2, 40, 3, dtype=dtype)
    result = vf.hmc.sample_potential(
        gaussians, z0, conditions(dtype), steps=40, warmup=250, leapfrog=leapfrog, seed=2
    )
    assert result.z.shape == (2, 40, 40, 3)
    assert (result.z.dtype, result.mass) == (dtype, "warmup")
    z = result.z.double()
    error = (z.mean((1, 2)) - MEANS) / SCALES
    assert error.abs().max() < 0.2  # of 40 independent chains at the least
    assert (z.std((1, 2)) / SCALES - 1).abs().max() < 0.15
    assert result.reasons == ("", "")
    expected = gaussians(z.flatten(1, 2).flatten(0, 1), _each(conditions(), 1600)).view(2, 40, 40)
    torch.testing.assert_close(result.energy, expected, rtol=1e-4, atol=1e-4)


def _each(context, times):
    return {name: t.repeat_interleave(times, 0) for name, t in context.items()}


def test_a_law_that_is_no_gaussian():
    """exp(−z⁴) and a logistic: moments by their formulas, chains as independent draws."""

    def potential(z):
        return z[:, 0] ** 4 + z[:, 1] + 2 * nn.functional.softplus(-z[:, 1])

    z0 = torch.randn(1, 4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = vf.hmc.sample_potential(potential, z0, steps=30, warmup=80, keep="last").z[0, :, 0]
    fourth, second = 0.25, math.gamma(0.75) / math.gamma(0.25)
    for values, mean in (
        (z[:, 0], 0.0),
        (z[:, 0] ** 2, second),
        (z[:, 0] ** 4, fourth),
        (z[:, 1], 0.0),
        (z[:, 1] ** 2, math.pi**2 / 3),
    ):
        assert abs(float(values.mean()) - mean) < 4.5 * float(values.std()) / 4000**0.5


def plain(potential, z, steps, leapfrog, step, mass, seed):
    """Hamiltonian Monte Carlo in ten lines, with the sampler's own random numbers."""
    draws = Draws(torch.arange(len(z) // 3), seed, 0.0)
    found = []

    def gradient(at):
        at = at.clone().requires_grad_()
        return torch.autograd.grad(potential(at).sum(), at)[0]

    for noise in draws.noises(z, 0, steps):
        p = start = noise.momentum * mass.sqrt()
        moved = z
        for _ in range(leapfrog):
            p = p - 0.5 * step * gradient(moved)
            moved = moved + step * p / mass
            p = p - 0.5 * step * gradient(moved)
        before = potential(z) + 0.5 * (start.square() / mass).sum(1)
        after = potential(moved) + 0.5 * (p.square() / mass).sum(1)
        accept = noise.acceptance.log() < before - after
        z = torch.where(accept[:, None], moved, z)
        found.append(z)
    return torch.stack(found, 1)


@pytest.mark.parametrize("with_gradient", [False, True])
def test_the_chains_are_plain_hmc(with_gradient):
    def potential(z):
        return 0.25 * z.pow(4).sum(1) + 0.3 * z[:, 0] * z[:, 1]

    def both(z):
        grad = z**3
        grad[:, :2] += 0.3 * z[:, :2].flip(1)
        return potential(z), grad

    z0 = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mass = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    result = vf.hmc.sample_potential(
        both if with_gradient else potential,
        z0,
        steps=25,
        warmup=0,
        adapt=None,
        leapfrog=5,
        step_size=0.4,
        jitter=0.0,
        mass=mass,
        seed=7,
    )
    expected = plain(potential, z0.flatten(0, 1), 25, 5, 0.4, mass, 7)
    torch.testing.assert_close(result.z.flatten(0, 1), expected, rtol=1e-9, atol=1e-9)
    assert 0.3 < float(result.accept_rate.mean()) < 1.0


def test_gradients_per_transition_are_counted():
    calls = []

    def potential(z):
        calls.append(len(z))
        return 0.5 * z.square().sum(1)

    vf.hmc.sample_potential(
        potential, torch.zeros(5, 2), steps=20, warmup=0, adapt=None, leapfrog=4
    )
    assert set(calls) == {5}
    assert len(calls) <= 20 * 4 + 12  # and what looks at rounding once


def test_rows_and_seeds_are_as_in_the_sampler():
    context, z0 = conditions(), torch.ones(2, 3, dtype=torch.float64)
    options = {"steps": 20, "warmup": 60, "chains": 2, "seed": 3}
    both = vf.hmc.sample_potential(gaussians, z0, context, **options)
    second = {name: t[1:] for name, t in context.items()}
    alone = vf.hmc.sample_potential(gaussians, z0[1:], second, index=torch.tensor([1]), **options)
    torch.testing.assert_close(alone.z[0], both.z[1], rtol=1e-9, atol=1e-9)
    assert not torch.equal(both.z[:, 0], both.z[:, 1])


def test_rows_without_a_finite_energy_fail_alone():
    def potential(z):
        return torch.where(z[:, 0] > 50, torch.nan, 0.5 * z.square().sum(1))

    z0 = torch.tensor([[0.0, 0.0], [99.0, 0.0], [torch.nan, 0.0]])
    with pytest.warns(vf.hmc.SamplerWarning, match=r"hmc\.sample_potential: .*not finite"):
        result = vf.hmc.sample_potential(potential, z0, steps=5, warmup=5)
    assert result.failed.tolist() == [False, True, True]
    assert result.z[0].isfinite().all()


@pytest.mark.filterwarnings("ignore::vaefast.hmc.SamplerWarning")  # of 3000 chains one may stand
def test_a_bounded_support_and_distributions():
    """U may be infinite or raise off the support: such proposals are rejected."""

    def potential(z):
        return -torch.distributions.Gamma(3.0, 2.0).log_prob(z[:, 0])

    z0 = torch.ones(1, 3000, 1, dtype=torch.float64)
    z = vf.hmc.sample_potential(
        potential, z0, steps=40, warmup=80, keep="last", step_size=0.3, leapfrog=5
    ).z
    assert (z > 0).all()
    assert abs(float(z.mean()) - 1.5) < 4.5 * (0.75 / 3000) ** 0.5


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((3, torch.zeros(1, 2)), {}, TypeError, "potential must be a function"),
        ((gaussians, [1.0]), {}, TypeError, "z0 must be a torch.Tensor"),
        ((gaussians, torch.zeros(2, 2).half()), {}, TypeError, "z0 must be float32 or float64"),
        ((gaussians, torch.zeros(3)), {}, ValueError, r"z0 must be \[B, d\] or \[B, C, d\]"),
        ((gaussians, torch.zeros(1, 3, 2)), {"chains": 2}, ValueError, "has 3 chains"),
        ((gaussians, torch.zeros(1, 2)), {"mass": "pullback"}, ValueError, "mass must be one of"),
        ((lambda z: 0.0, torch.zeros(1, 2)), {}, TypeError, "must return a tensor"),
        ((lambda z: z, torch.zeros(1, 2)), {}, ValueError, "one energy per row"),
        ((lambda z: (z.sum(1), z[:1, :1]), torch.zeros(2, 2)), {}, ValueError, "gradient must be"),
        ((lambda z: z.detach().sum(1), torch.zeros(2, 2)), {}, RuntimeError, "no gradient"),
        ((gaussians, torch.zeros(2, 3), torch.zeros(3, 1)), {}, ValueError, "context"),
        ((gaussians, torch.zeros(2, 3)), {"steps": 0}, ValueError, "steps must be"),
    ],
)
def test_mistakes(arguments, options, error, message):
    with pytest.raises(error, match=message):
        vf.hmc.sample_potential(*arguments, **{"steps": 3, "warmup": 3, **options})


@pytest.fixture
def vae():
    torch.manual_seed(0)
    parts = [nn.Sequential(nn.Flatten(), nn.Linear(9, 2)) for _ in range(2)]
    return VAE(
        encoder_mean=parts[0],
        encoder_logvar=parts[1],
        decoder=nn.Linear(2, 9),
        likelihood="bernoulli",
        event_shape=(1, 3, 3),
    ).eval()


def test_the_published_call_is_the_published_schedule(vae):
    x = torch.rand(5, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    z_init = 0.5 * philox.normal(2, seed=0, index=torch.arange(5), use=Use.START).float()
    found = vf.hmc.sample_posterior(vae, z_init, x, 20, 0.1, seed=4)
    expected = vf.hmc.sample(
        vae, x, init=z_init, steps=20, step_size=0.1, schedule="kuzina2022", group=5, seed=4
    )
    assert torch.equal(found, expected.z[:, 0, 0])
    assert (expected.step_size == expected.step_size[0]).all()
    assert expected.step_size[0] != 0.1
    with pytest.raises(ValueError, match="init"):
        vf.hmc.sample_posterior(vae, z_init[:, :1], x, 20, 0.1)

"""Exported chains lacked what ArviZ's checks read: ``az.bfmi`` raised, divergences were not drawn.

``to_arviz`` holds energy, diverging, acceptance_rate, step_size and n_steps of every draw, those of
the transitions that were made.
"""

import pickle

import pytest
import torch
from torch import nn

from vaefast.functional.hmc import Draws, State, step
from vaefast.hmc import sample
from vaefast.hmc.diagnostics import kinetic_energy
from vaefast.models import VAE

D, LATENTS = 6, 3
RUN = {"chains": 2, "steps": 40, "warmup": 20, "leapfrog": 3, "seed": 5}
NAMES = {"lp", "energy", "diverging", "acceptance_rate", "step_size", "n_steps"}


class Opaque(nn.Module):
    """The identity, as no network is."""

    def forward(self, z):
        return z.unsqueeze(-1).cummax(-1).values.squeeze(-1)


def model(generic=False, obs_std=0.1):
    torch.manual_seed(3)
    layers = [nn.Linear(LATENTS, 8), nn.Tanh(), nn.Linear(8, D)]
    for layer in layers[::2]:
        layer.weight.data.mul_(6.0)
    vae = VAE(
        encoder_mean=nn.Linear(D, LATENTS),
        encoder_logvar=torch.full((LATENTS,), -1.0),
        decoder=nn.Sequential(*([Opaque()] if generic else []), *layers),
        likelihood="gaussian",
        obs_std=obs_std,
    )
    return vae.double().eval()


def images(rows=3):
    return torch.rand(rows, D, generator=torch.Generator().manual_seed(0)).double()


def test_bfmi_works():
    az = pytest.importorskip("arviz")
    result = sample(model(obs_std=0.5), images(), **{**RUN, "warmup": 300, "steps": 200})
    one = result.to_arviz(row=1)
    assert set(one.sample_stats) == NAMES
    assert az.bfmi(one).shape == (2,)
    assert (az.bfmi(one) > 0.2).all()
    assert one.sample_stats["diverging"].dtype == bool
    every = result.to_arviz()
    for name in NAMES:
        assert every.sample_stats[name].dims == ("chain", "draw", "row")
        assert one.sample_stats[name].dims == ("chain", "draw")
        assert (every.sample_stats[name].values[:, :, 1] == one.sample_stats[name].values).all()
    assert (one.sample_stats["n_steps"].values == 3).all()
    mean = one.sample_stats["acceptance_rate"].mean("draw").values
    torch.testing.assert_close(torch.from_numpy(mean), result.accept_rate[1])
    assert (one.sample_stats["step_size"].values == result.step_size[1].item()).all()


@pytest.mark.parametrize("mass", [None, "posterior"])
@pytest.mark.parametrize("keep", ["all", 10])
def test_the_energy_is_the_level_of_the_next_trajectory(mass, keep):
    """Made again from a draw and the noise of the transition after it."""
    index = torch.tensor([7, 1 << 40, 0])
    result = sample(model(), images(), mass=mass, keep=keep, index=index, **RUN)
    found = kinetic_energy(result.z, result.transitions)
    thin = 40 // result.z.shape[2]
    draws = Draws(index, RUN["seed"], 0.2)
    for draw in (0, 5, result.z.shape[2] - 1):
        t = 20 + 40 - (result.z.shape[2] - 1 - draw) * thin
        momentum = draws.noise(result.z[:, :, draw].flatten(0, 1), t).momentum
        expected = 0.5 * momentum.square().sum(1).view(3, 2)
        torch.testing.assert_close(found[:, :, draw], expected)


def made_again(vae, x, result, step_size):
    """Every transition's divergence, [B, C, T], by one transition from each draw before."""
    draws = Draws(torch.arange(len(x)), RUN["seed"], 0.2)

    def potential(z):
        z = z.detach().requires_grad_()
        U = -vae.log_likelihood(x, z) - vae.log_prior(z)
        return U.detach(), torch.autograd.grad(U.sum(), z)[0]

    found = []
    for t in range(1, result.z.shape[2]):
        z = result.z[:, :, t - 1].flatten(0, 1)
        noise = draws.noise(z, t)
        state = State(z, *potential(z))
        _, info = step(state, potential, step=step_size, leapfrog=3, noise=noise)
        found.append(info.divergent.view(len(x), -1))
    return torch.stack(found, 2)


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.filterwarnings("ignore:hmc.sample")
def test_diverging_draws_are_those_whose_transition_diverged(generic):
    vae, x = model(generic), images(24)
    step_size = torch.logspace(-2, 0, 24).double()
    given = {**RUN, "warmup": 0, "adapt": None, "step_size": step_size}
    result = sample(vae, x, **given)
    mixed = (result.divergent > 0) & (result.divergent + result.accept_rate * 40 < 39.5)
    assert mixed.any()  # rejected some that did not diverge
    assert torch.equal(result.diverging.sum(2), result.divergent)
    assert torch.equal(result.diverging[:, :, 1:], made_again(vae, x, result, step_size))


@pytest.mark.filterwarnings("ignore:hmc.sample")
def test_what_cannot_be_told_is_left_out():
    pytest.importorskip("arviz")
    given = {**RUN, "warmup": 0, "adapt": None, "keep": 10}
    fine = sample(model(), images(), step_size=0.005, **given)
    assert not fine.to_arviz().sample_stats["diverging"].values.any()
    far = sample(model(), images(), step_size=0.2, **given)
    assert far.diverging is None
    assert set(far.to_arviz().sample_stats) == NAMES - {"diverging"}


def test_a_result_survives_being_saved(tmp_path):
    x = images()
    x[1] = torch.nan
    result = sample(model(), x, **RUN)
    torch.save(result, tmp_path / "result.pt")
    loaded = torch.load(tmp_path / "result.pt", weights_only=False)
    for again in (loaded, pickle.loads(pickle.dumps(result))):
        assert again.reasons == result.reasons == ("", "x holds NaN or infinity", "")
        torch.testing.assert_close(again.z, result.z, equal_nan=True)
        assert again.transitions.seed == RUN["seed"]

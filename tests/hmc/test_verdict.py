"""One line on which rows mixed, and the numbers behind it."""

import dataclasses

import pytest
import torch

from vaefast.functional.hmc import Draws, State, transition
from vaefast.hmc import sample
from vaefast.hmc.diagnostics import Diagnostics
from vaefast.models.prepare import prepare


def diagnostics(rows=5):
    fine = torch.ones(rows, 3).double()
    return Diagnostics(
        r_hat=fine.clone(),
        ess_bulk=500 * fine,
        ess_tail=400 * fine,
        accept_rate=torch.ones(rows, 2),
        divergent=torch.zeros(rows, 2, dtype=torch.int64),
        step_size=torch.ones(rows),
        e_bfmi=torch.ones(rows, 2).double(),
        energy_error=None,
        failed=torch.zeros(rows, dtype=torch.bool),
        transitions=100,
    )


def test_all_mixed():
    assert diagnostics().verdict == "5 of 5 rows mixed"
    assert diagnostics().mixed.all()


def test_each_reason_is_named_with_its_worst():
    found = diagnostics(8)
    found.r_hat[1, 2], found.r_hat[4, 0] = 1.4, 1.1
    found.ess_tail[2, 0] = 30.0
    found.e_bfmi[3, 1] = 0.1
    found.divergent[5, 0] = 40
    found.failed[6] = True
    found.r_hat[6] = found.ess_bulk[6] = found.ess_tail[6] = torch.nan
    found.ess_bulk[7, 1] = torch.nan  # a chain that never moved
    assert found.mixed.tolist() == [True, *[False] * 7]
    line = found.verdict
    assert "\n" not in line
    assert line.startswith("1 of 8 rows mixed; ")
    for part in (
        "row 6 did not: failed",
        "row 7 did not: no draws that could be judged",
        "rows 1, 4 did not: R-hat 1.40 at worst",
        "row 5 did not: divergent transitions 20.0%",
        "row 3 did not: E-BFMI 0.10",
        "row 2 did not: 30 effective draws",
    ):
        assert part in line


def test_a_single_chain_is_judged_by_its_draws():
    found = dataclasses.replace(diagnostics(2), r_hat=torch.full((2, 3), torch.nan).double())
    assert found.verdict == "2 of 2 rows mixed"


def test_the_verdict_of_a_result(mlp_vae):
    pytest.importorskip("arviz")
    x = torch.rand(3, 6, generator=torch.Generator().manual_seed(0)).double()
    x[1] = torch.nan
    mixed = sample(mlp_vae(), x, chains=4, steps=300, warmup=100)
    assert mixed.verdict == "2 of 3 rows mixed; row 1 did not: failed"
    still = sample(mlp_vae(), x[:1], chains=4, steps=50, warmup=0, adapt=None, step_size=1e-3)
    assert still.verdict.startswith("0 of 1 rows mixed; row 0 did not: R-hat ")


def test_e_bfmi_is_arvizs(mlp_vae):
    az = pytest.importorskip("arviz")
    x = torch.rand(2, 6, generator=torch.Generator().manual_seed(0)).double()
    result = sample(mlp_vae(), x, chains=3, steps=80, warmup=50, mass="dense")
    found = result.diagnostics().e_bfmi
    for row in range(2):
        expected = torch.from_numpy(az.bfmi(result.to_arviz(row=row)))
        torch.testing.assert_close(found[row], expected, rtol=1e-6, atol=1e-9)
    thinned = sample(mlp_vae(), x, chains=3, steps=80, warmup=50, keep=20)
    assert thinned.diagnostics().e_bfmi.isnan().all()
    assert thinned.energy_error is None


@pytest.mark.parametrize("leapfrog", [3, "chees"])
def test_energy_errors_are_those_of_the_transitions(mlp_vae, leapfrog):
    """A proposal that was taken changed H by as much as the draws' energies and momenta say."""
    vae, x = mlp_vae(), torch.rand(2, 6, generator=torch.Generator().manual_seed(0)).double()
    result = sample(vae, x, chains=8, steps=200, warmup=60, leapfrog=leapfrog, mass="unit")
    assert result.energy_error.shape == (2, 8, 3)
    errors = result.energy_error.flatten()
    assert (errors.abs() < 20).all()
    assert 0.4 < errors.clamp(min=0).neg().exp().mean() <= 1  # the acceptance probability
    target = _target(vae, x, int(result.leapfrog[0]))
    at = result.z[:1, :, 62].flatten(0, 1)
    noise = Draws(torch.arange(1), 0, 0.2).noise(at, 60 + 63)
    state = State(at, *target.potential(at))
    _, info = transition(state, target.trajectory(), step=result.step_size[:1], noise=noise)
    torch.testing.assert_close(result.energy_error[0, :, 0], info.energy_error)


def _target(vae, x, leapfrog):
    from vaefast.hmc.target import NetworkTarget

    net = prepare(vae, x).maps.decoder.lowered
    return NetworkTarget(x[:1], net, "bernoulli", (), None, leapfrog, "ieee", None)

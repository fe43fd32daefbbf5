"""Path lengths of rows of their own."""

import pytest
import torch
from torch import nn

from vaefast.hmc import sample
from vaefast.hmc.chees import GRID, PathLengths, QuarterPeriod
from vaefast.models.vae import VAE


def rotated(start, path, chains=64, steps=400):
    """Exact trajectories of a standard normal target: z' = z cos τ + p sin τ."""
    generator = torch.Generator().manual_seed(0)
    lengths = PathLengths(torch.tensor(start))
    for _ in range(steps):
        z, p = (torch.randn(len(start), chains, 3, generator=generator).double() for _ in range(2))
        factor = 0.8 + 0.4 * torch.rand(len(start), generator=generator).double()
        tau = (lengths._log.exp() * factor)[:, None, None]
        end, velocity = z * tau.cos() + p * tau.sin(), p * tau.cos() - z * tau.sin()
        lengths.update(z, end, velocity, torch.ones(len(start), chains), tau[:, 0, 0], path)
    return lengths


def test_lengths_find_a_quarter_period_from_both_sides():
    """ChEES of a normal target is largest at τ = π/2."""
    found = rotated([0.3, 2.5], torch.full((2,), 100.0)).average
    assert ((found - torch.pi / 2).abs() < 0.25).all()


def test_lengths_stop_where_they_are_told():
    assert rotated([0.3], torch.full((1,), 0.5)).average < 0.5 + 1e-9


def test_leapfrogs_are_the_nearest_of_the_grid():
    lengths = PathLengths(torch.tensor([1.0, 1.0, 1.0, 1.0]))
    step = torch.tensor([10.0, 0.3, 0.1, 1e-9])
    assert lengths.leapfrogs(step).tolist() == [1, 3, 12, GRID[-1]]  # 10 is nearer to 12 than 8


def test_a_diverged_chain_teaches_nothing():
    lengths, z = PathLengths(torch.tensor([1.0])), torch.randn(1, 8, 2)
    end = torch.full_like(z, torch.nan)
    lengths.update(z, end, end, torch.zeros(1, 8), torch.ones(1), torch.ones(1) * 9)
    assert lengths.average == 1.0


def test_rows_get_the_leapfrogs_that_they_need():
    """One row's likelihood is sharp in one direction, the other's is flat."""

    class Curve(nn.Module):
        def forward(self, z):
            return z[:, :1].square() * 30.0

    vae = VAE(
        encoder_mean=nn.Linear(1, 2),
        encoder_logvar=torch.zeros(2),
        decoder=Curve(),
        likelihood="gaussian",
    ).double()
    x = torch.tensor([[120.0], [0.0]]).double()
    init = torch.tensor([[2.0, 0.0], [0.0, 0.0]]).double()
    given = {"chains": 8, "warmup": 150, "steps": 20, "seed": 1, "mass": "unit"}
    result = sample(vae, x, init=init, leapfrog="chees", **given)
    assert result.leapfrog[0] > 2 * result.leapfrog[1]
    assert set(result.leapfrog.tolist()) <= set(GRID)
    assert not result.failed.any()


def test_a_quarter_period_goes_by_the_row_s_step_size():
    lengths = QuarterPeriod()
    step = torch.tensor([3.0, 0.5, 0.25, 1e-6, torch.nan])
    assert lengths.leapfrogs(step)[:4].tolist() == [1, 3, 6, 24]


@pytest.mark.parametrize("mass", ["unit", "dense"])
def test_rows_run_with_their_own_number(mlp_vae, mass):
    """A row of a call is the row alone with that number of leapfrogs held."""
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)).double()
    step = torch.tensor([0.1, 0.4, 0.8, 0.4]).double()
    given = {"adapt": None, "jitter": 0.3, "chains": 2, "warmup": 3, "steps": 12, "mass": mass}
    together = sample(mlp_vae(), x, step_size=step, leapfrog="quarter", **given)
    assert together.leapfrog.tolist() == [16, 4, 2, 4]
    for row in range(4):
        index, L = torch.tensor([row]), int(together.leapfrog[row])
        alone = sample(
            mlp_vae(), x[row : row + 1], step_size=step[row], leapfrog=L, index=index, **given
        )
        torch.testing.assert_close(alone.z[0], together.z[row], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chains": 4}, 'leapfrog="chees" needs 8 chains or more'),
        ({"adapt": None}, 'needs adapt="dual_averaging" and a warm-up'),
        ({"warmup": 0}, 'needs adapt="dual_averaging"'),
        ({"schedule": "kuzina2022"}, "needs no schedule, which fixes leapfrog"),
        ({"leapfrog": "nuts"}, "leapfrog must be one of 'quarter', 'chees'"),
    ],
)
def test_errors(mlp_vae, options, message):
    with pytest.raises(ValueError, match=message):
        sample(
            mlp_vae(), torch.rand(2, 6).double(), **{"leapfrog": "chees", "chains": 8, **options}
        )

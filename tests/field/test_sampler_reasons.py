"""``failed`` said that a row failed and not why; chains that never moved were returned in silence.

Every row has a reason, through blocks, memory cuts, groups and conditions, and one line of warning
names the rows.
"""

import numpy as np
import pytest
import torch
from torch import nn

from vaefast.audit import AuditSettings, Stages
from vaefast.audit import stages as stage
from vaefast.audit.job import Job
from vaefast.cli.output import save_npz
from vaefast.hmc import SamplerWarning, defend, sample, tune
from vaefast.models import MLPVAE, VAE
from vaefast.runtime.memory import set_memory

D, LATENTS = 6, 2
RUN = {"steps": 20, "warmup": 20, "leapfrog": 3, "seed": 4}


class Opaque(nn.Module):
    """The identity, as no network is."""

    def forward(self, z):
        return z.unsqueeze(-1).cummax(-1).values.squeeze(-1)


class Overflowing(nn.Module):
    """An encoder whose variance overflows, or vanishes, where the first pixel says so."""

    def forward(self, x):
        extreme = (x[:, :1] > 0.95) * 1e4 - (x[:, :1] < 0.05) * 1e4
        return extreme.expand(-1, LATENTS)


class Shifted(nn.Module):
    """A decoder that adds its condition."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(LATENTS, D)

    def forward(self, z, context):
        return self.linear(z) + context


def model(generic=False, logvar=None, **options):
    torch.manual_seed(0)
    decoder = [nn.Linear(LATENTS, 8), nn.Tanh(), nn.Linear(8, D)]
    return VAE(
        encoder_mean=nn.Linear(D, LATENTS),
        encoder_logvar=torch.full((LATENTS,), -1.0) if logvar is None else logvar,
        decoder=nn.Sequential(*([Opaque()] if generic else []), *decoder),
        **options,
    ).eval()


def images(rows):
    x = torch.rand(rows, D, generator=torch.Generator().manual_seed(0))
    return 0.1 + 0.8 * x


@pytest.mark.parametrize("generic", [False, True])
def test_why_a_row_failed(generic):
    x, init = images(3), torch.zeros(3, LATENTS)
    x[1, 2] = torch.nan
    init[2] = torch.inf
    with pytest.warns(SamplerWarning, match=r"hmc\.sample: 1 of 3 inputs \(row 1\) failed") as seen:
        result = sample(model(generic), x, init=init, **RUN)
    assert len(seen) == 1
    assert result.failed.tolist() == [False, True, True]
    assert result.reasons == ("", "x holds NaN or infinity", "init holds NaN or infinity")


@pytest.mark.filterwarnings("ignore::vaefast.hmc.SamplerWarning")
def test_why_an_encoder_or_a_mass_failed():
    x = images(3)
    x[1, 0], x[2, 0] = 0.99, 0.01
    vae = model(logvar=Overflowing())
    drawn = sample(vae, x, **RUN)
    assert drawn.reasons == ("", "the encoder's mean or variance is not finite", "")
    mass = sample(vae, x, init=torch.zeros(3, LATENTS), mass="posterior", **RUN)
    assert mass.reasons[0] == ""
    assert all(reason.endswith("so no mass") for reason in mass.reasons[1:])


@pytest.fixture
def budget():
    yield set_memory
    set_memory(1 << 30)


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.filterwarnings("ignore::vaefast.hmc.SamplerWarning")
def test_reasons_are_cut_and_padded_like_rows(generic, budget):
    x = images(40)
    x[3], x[17], x[39] = torch.nan, torch.inf, torch.nan
    index = torch.randperm(100, generator=torch.Generator().manual_seed(1))[:40]
    vae, run = model(generic), {"steps": 2, "warmup": 2, "leapfrog": 2}
    whole = sample(vae, x, index=index, **run)
    assert [row for row, reason in enumerate(whole.reasons) if reason] == [3, 17, 39]
    budget(30_000)
    assert sample(vae, x, index=index, **run).reasons == whole.reasons
    part = sample(vae, x[10:20], index=index[10:20], **run)
    assert part.reasons == whole.reasons[10:20]


@pytest.mark.filterwarnings("ignore::vaefast.hmc.SamplerWarning")
def test_reasons_with_groups_and_conditions():
    vae = model()
    vae.decoder = Shifted()
    x, c = images(6), torch.zeros(6, D)
    c[4, 1] = torch.nan
    x[2] = torch.nan
    group = torch.tensor([0, 1, 0, 1, 2, 2])
    given = {"context": c, "chains": 2, "leapfrog": 2, "steps": 4}
    result = sample(vae, x, schedule="kuzina2022", group=group, **given)
    assert result.reasons[2] == "x holds NaN or infinity"
    assert result.reasons[4] == "the energy at the start is not finite"
    assert [bool(r) for r in result.reasons] == result.failed.tolist()


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("call", [sample, defend])
def test_a_chain_that_never_moved_is_said(generic, call):
    step_size = torch.tensor([0.1, 1e3, 1e4])
    run = {**RUN, "warmup": 0, "adapt": None, "step_size": step_size, "chains": 2}
    with pytest.warns(SamplerWarning, match=r"2 of 3 inputs \(rows 1, 2\): ") as seen:
        result = call(model(generic), images(3), **run)
    result = getattr(result, "result", result)
    assert len(seen) == 1
    assert seen[0].filename == __file__
    assert "smaller step_size=" in str(seen[0].message)
    assert result.reasons[0] == ""
    assert all("chain" in reason for reason in result.reasons[1:])
    assert not result.failed.any()


def test_a_few_rejected_proposals_say_nothing(recwarn):
    run = {"steps": 3, "warmup": 0, "adapt": None, "step_size": 2.0, "leapfrog": 1, "chains": 4}
    result = sample(model(), images(20), **run)
    assert (result.accept_rate == 0).any()
    assert not any(result.reasons)
    assert not [w for w in recwarn if issubclass(w.category, SamplerWarning)]


def test_the_tuner_says_it_once():
    x = images(3)
    x[0] = torch.nan
    with pytest.warns(SamplerWarning, match=r"hmc\.tune: 1 of 3 inputs") as seen:
        tune(model(), x, leapfrogs=(2, 3), steps=10, warmup=10)
    assert len(seen) == 1


def test_a_command_says_it_once_for_all_blocks(tmp_path):
    """Its rows are those of the file, not of a block."""
    x = torch.rand(70, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x[1], x[69] = torch.nan, torch.nan
    vae = MLPVAE((1, 8, 8), hidden=(8,), latent=2, seed=0).eval()
    settings = AuditSettings(warmup=30, transitions=10, leapfrog=2)
    with pytest.warns(SamplerWarning, match=r"2 of 70 inputs \(rows 1, 69\) failed") as seen:
        found = stage.defend(Job(vae, x, settings, Stages(None)), x, "inputs")
    assert len(seen) == 1
    save_npz(tmp_path / "out.npz", {"failed": found.failed, "reasons": found.reasons})
    saved = np.load(tmp_path / "out.npz", allow_pickle=False)
    assert tuple(saved["reasons"]) == found.reasons

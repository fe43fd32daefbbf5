"""The script behind the table of training: its models, rows and spread over seeds."""

import math

import pytest
import torch

import vaefast as vf
from vaefast.bench import certificates_levers as levers
from vaefast.bench import certificates_models as models
from vaefast.bench.rows import append


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(models, "SMALL", (8, 8))
    monkeypatch.setattr(levers, "INPUTS", 2)
    monkeypatch.setattr(levers, "MANY", 3_000)
    monkeypatch.setattr(levers, "DRAWS", 3_000)


def test_seeds_become_a_line_with_their_spread(tmp_path):
    x = vf.data.load("digits").x_train[:80]
    rows = []
    for seed in (0, 1):
        vae = levers.trained(tmp_path, "elbo", seed, x, 1)
        rows.append(levers.measured("elbo", seed, vae, x))
        assert (tmp_path / f"elbo-{seed}.safetensors").exists()
    assert rows[0].log_p != rows[1].log_p  # the seeds are two models
    kept = levers.trained(tmp_path, "elbo", 1, x[:10], 1)  # from its file
    assert torch.equal(kept.posterior(x)[0], vae.posterior(x)[0])
    for row in rows:
        assert 0 < row.few <= row.many * 1.05
        assert row.r_grey < row.r  # more than a grey level is certified at r
        assert not row.of_attack > 1
    append(tmp_path / "rows.csv", rows)
    line = levers.table(tmp_path / "rows.csv").splitlines()[-1]
    mean = (rows[0].error + rows[1].error) / 2
    assert line.startswith("| elbo | 2 |")
    assert f"{mean:.2f} ± {abs(rows[0].error - rows[1].error) / math.sqrt(2):.2f}" in line
    assert f"| {rows[0].none + rows[1].none} of 4 |" in line


def test_a_lipschitz_vae_has_its_own_certificate_at_the_r_of_its_choice(tmp_path, monkeypatch):
    monkeypatch.setattr(levers, "PROMISE", {"certified_radius": 0.3, "r": 2.0})
    x = vf.data.load("digits").x_train[:80]
    vae = levers.trained(tmp_path, "lipschitz", 0, x, 1)
    row = levers.measured("lipschitz", 0, vae, x)
    assert row.r == 2.0
    assert row.none == 0
    assert row.few == row.many >= 0.3
    assert math.isnan(row.log_p)
    held = vf.certify.margin(vae, x[:2], row.r_grey * 1.01, method="lipschitz").margin
    assert bool((held >= levers.GREY_LEVEL * 0.99).all())

"""The sampler's benchmark: what a row is worth, and its table."""

import csv

import pytest
import torch

from vaefast.bench import sampler
from vaefast.bench.sampler_table import sampler_table


def test_draws_that_are_independent_count_in_full():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, 4, 200, 2, generator=generator)
    row = sampler.measured("a B=3", "ours", lambda: (z, 5.0))
    assert 500 < row.worst_row <= row.median_row
    assert row.per_second_z >= row.per_second > 0
    assert row.r_hat < 1.03
    assert row.leapfrogs == 5.0


def test_a_jump_from_side_to_side_counts_by_its_width():
    generator = torch.Generator().manual_seed(0)
    radius = 1 + 0.5 * torch.randn(1, 4, 1, 1, generator=generator).expand(1, 4, 200, 1)
    sign = torch.tensor([1.0, -1.0]).repeat(100).view(1, 1, 200, 1)
    noise = 0.01 * torch.randn(1, 4, 200, 1, generator=generator)
    row = sampler.measured("a B=1", "ours", lambda: (sign * (radius + noise), 5.0))
    assert row.worst_row < 20
    assert row.per_second_z > 20 * row.per_second


def test_a_run_writes_its_rows(tmp_path, monkeypatch, capsys):
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    vae = sampler.vf.models.MLPVAE((1, 8, 8), (6,), 2).eval()
    monkeypatch.setattr(sampler, "model", lambda decoder, path: vae)
    monkeypatch.setattr(sampler, "load", lambda name: type("Data", (), {"x_test": images}))
    monkeypatch.setattr(sampler, "WARMUP", 20)
    monkeypatch.setattr(sampler, "STEPS", 20)
    path, threads = tmp_path / "rows.csv", torch.get_num_threads()
    asked = ["--rows", "2", "--seeds", "3", "4", "--threads", str(threads), "--out", str(path)]
    assert sampler.main([*asked, "--settings", *list(sampler.SETTINGS)[:2]]) == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["provider"] for row in rows] == 2 * list(sampler.SETTINGS)[:2]
    assert "B=2 C=4 T=20+20 seed=3 " in rows[0]["case"]
    assert float(rows[1]["leapfrogs"]) == 10
    assert capsys.readouterr().out.count("effective draws/s") == 4


def test_a_line_is_the_median_of_the_seeds_and_the_worst_of_all():
    values = {"seconds": (1, 3, 2), "per_second": (4000, 3000, 3500), "per_second_z": (1, 1, 1)}
    values |= {"median_row": (700, 720, 710), "worst_row": (210, 190, 230)}
    values["r_hat"] = (1.01, 1.02, 1.015)
    rows = [
        {"case": f"mlp B=64 C=4 T=300+500 seed={seed} float32 cpu", "provider": "ours"}
        | {name: str(of[seed]) for name, of in values.items()}
        for seed in range(3)
    ]
    *_, line = sampler_table(rows)
    assert line == "| mlp | 64 | ours | 3 | 2.0 | 3,500 | 1 | 710 | 190 | 1.020 |"


@pytest.mark.parametrize("kernel", ["blackjax HMC, L=10, window adaptation"])
def test_a_peer_that_is_missing_says_so(kernel, monkeypatch):
    monkeypatch.setattr("vaefast.bench.ops._jax.installed", lambda *packages: False)
    with pytest.raises(ValueError, match="blackjax hmc needs blackjax and JAX"):
        sampler.PEERS[kernel](None, None, 4, 10, 10, 0)

"""The peers of spectra compute what ours does, and each table is of what it says."""

import math

import pytest
import torch

import vaefast as vf
from vaefast.bench import geometric_attack, lanczos, spectra, trace_estimators, trace_times
from vaefast.bench.place import Place

TINY = Place("cpu", tiny=True)


def test_peers_have_the_same_spectra():
    for _, build in spectra.cases(TINY):
        benchmark = build()
        assert len(benchmark.checks) == 2
        for check in benchmark.checks.values():
            theirs, ours = check()
            limit = benchmark.tolerance * ours[:, :1].max()
            assert theirs.shape == ours.shape
            assert ((theirs - ours).abs() <= limit).all()


def test_errors_of_estimators_at_equal_products():
    rows = list(trace_estimators.measured(size=16, products=(4, 12), rows=50))
    assert {row.method for row in rows} >= {"gaussian", "orthogonal", "hutch++", "xtrace"}
    exact = [row for row in rows if row.spectrum == "rank 1" and row.method == "hutch++"]
    assert all(row.error < 1e-6 for row in exact)
    assert {row.products for row in rows} == {4, 12}


def test_errors_over_spectra_are_root_mean_squares():
    rows = list(trace_estimators.measured(size=16, products=(6,), rows=20))
    ((key, found),) = trace_estimators.over_spectra(rows).items()
    own = [row.error for row in rows if row.method == "sphere"]
    assert key == (16, 6)
    assert len(own) == 5
    assert found["sphere"] == pytest.approx(math.sqrt(sum(e * e for e in own) / 5))


def test_times_of_traces_are_at_the_same_products():
    rows = list(trace_times.measured(8, rounds=1))
    assert len(rows) == 2 * 2 * 4
    exact = {row.case.split(",")[0]: row.products for row in rows if row.method == "exact"}
    assert exact == {"encoder": 8, "reconstruction": 16}
    assert all(row.products <= trace_times.PRODUCTS for row in rows if row.method != "exact")


def test_lanczos_of_an_autoencoder_kl(monkeypatch):
    pytest.importorskip("diffusers")
    monkeypatch.setattr(
        lanczos, "CASES", {"small": lanczos.Case((4, 8), 1, 16, "encoder", False, 9)}
    )
    row = lanczos.measured("small")
    assert (row.image, row.latents) == ("3x16x16", "4x8x8")
    assert 0 <= row.residual < row.value


def test_the_attack_s_table_counts_its_gradients():
    vae = vf.models.MLPVAE((1, 8, 8), (16,), latent=4).eval()
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = geometric_attack.measured("small", vae, x, eps=0.5, refine=(0, 2), pgd=((1, 5),))
    assert {row.attack for row in rows} == {"encoder", "fisher", "reconstruction"}
    for row in rows:
        assert 0 < row.median <= 1.5
        assert row.gradients > 0

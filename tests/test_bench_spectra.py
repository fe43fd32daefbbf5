"""The peers of spectra compute what ours does, and each table is of what it says."""

import torch

import vaefast as vf
from vaefast.bench import geometric_attack, spectra, trace_estimators
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


def test_the_attack_s_table_counts_its_gradients():
    vae = vf.models.MLPVAE((1, 8, 8), (16,), latent=4).eval()
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = geometric_attack.measured("small", vae, x, eps=0.5, refine=(0, 2), pgd=((1, 5),))
    assert {row.attack for row in rows} == {"encoder", "fisher", "reconstruction"}
    for row in rows:
        assert 0 < row.median <= 1.5
        assert row.gradients > 0

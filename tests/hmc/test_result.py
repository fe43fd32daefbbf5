"""Diagnostics and export of a result."""

import builtins

import pytest
import torch

from vaefast.hmc import HMCResult, sample


@pytest.fixture
def result(mlp_vae):
    x = torch.rand(3, 6, generator=torch.Generator().manual_seed(0)).double()
    x[1] = torch.nan
    return sample(mlp_vae(), x, chains=4, steps=100, warmup=50, seed=1)


def synthetic(z, accept=1.0):
    B, C, T, _ = z.shape
    return HMCResult(
        z=z,
        accept_rate=torch.full((B, C), accept),
        step_size=torch.ones(B),
        energy=torch.zeros(B, C, T).double(),
        divergent=torch.zeros(B, C, dtype=torch.int64),
        failed=torch.zeros(B, dtype=torch.bool),
        unresolved=torch.zeros(B, dtype=torch.bool),
        rounding=torch.zeros(B).double(),
        reasons=("",) * B,
    )


def test_diagnostics_are_those_of_each_row(result):
    arviz = pytest.importorskip("arviz")
    found = result.diagnostics()
    for values in (found.r_hat, found.ess_bulk, found.ess_tail):
        assert values.shape == (3, 2)
        assert values.dtype == torch.float64
        assert values[1].isnan().all()  # the failed row
    for row in (0, 2):
        for latent in (0, 1):
            draws = result.z[row, :, :, latent].numpy()
            assert found.r_hat[row, latent] == pytest.approx(arviz.rhat(draws))
            assert found.ess_bulk[row, latent] == pytest.approx(arviz.ess(draws, method="bulk"))
            assert found.ess_tail[row, latent] == pytest.approx(arviz.ess(draws, method="tail"))
    assert torch.equal(found.divergent, result.divergent)
    torch.testing.assert_close(found.accept_rate, result.accept_rate, equal_nan=True)
    torch.testing.assert_close(found.step_size, result.step_size, equal_nan=True)


def test_r_hat_sees_chains_that_disagree():
    pytest.importorskip("arviz")
    z = torch.randn(2, 4, 200, 1, generator=torch.Generator().manual_seed(0))
    z[1, 0] += 5
    r_hat = synthetic(z).diagnostics().r_hat[:, 0]
    assert r_hat[0] < 1.02
    assert r_hat[1] > 1.2


def test_a_chain_that_never_moved_has_no_ess():
    pytest.importorskip("arviz")
    z = torch.randn(2, 4, 50, 1, generator=torch.Generator().manual_seed(0))
    z[1, 2] = 0.5
    found = synthetic(z).diagnostics()
    assert found.ess_bulk[0, 0] > 50
    assert found.ess_bulk[1, 0].isnan()
    assert found.r_hat[1, 0].isnan()


@pytest.mark.parametrize(
    ("chains", "draws", "r_hat", "ess"),
    [(1, 50, False, True), (4, 3, False, False), (2, 4, True, True), (1, 1, False, False)],
)
@pytest.mark.filterwarnings("error")
def test_undefined_diagnostics_are_nan(chains, draws, r_hat, ess):
    pytest.importorskip("arviz")
    z = torch.randn(2, chains, draws, 3, generator=torch.Generator().manual_seed(0))
    found = synthetic(z).diagnostics()
    assert found.r_hat.isfinite().all() == r_hat
    assert found.ess_bulk.isfinite().all() == ess


def test_no_rows_have_no_diagnostics():
    pytest.importorskip("arviz")
    assert synthetic(torch.zeros(0, 2, 10, 3)).diagnostics().r_hat.shape == (0, 3)


def test_to_arviz(result):
    pytest.importorskip("arviz")
    data = result.to_arviz()
    assert dict(data.posterior.sizes) == {"chain": 4, "draw": 100, "row": 3, "latent": 2}
    assert data.posterior["z"].dims == ("chain", "draw", "row", "latent")
    torch.testing.assert_close(torch.tensor(data.posterior["z"].values[3, 7, 2]), result.z[2, 3, 7])
    lp = torch.tensor(data.sample_stats["lp"].values)
    torch.testing.assert_close(lp[3, 7, 2], -result.energy[2, 3, 7])
    one = result.to_arviz(row=2)
    assert one.posterior["z"].dims == ("chain", "draw", "latent")
    torch.testing.assert_close(torch.tensor(one.posterior["z"].values[3, 7]), result.z[2, 3, 7])
    assert one.sample_stats["lp"].dims == ("chain", "draw")


@pytest.mark.parametrize("row", [3, -1])
def test_to_arviz_without_such_a_row(result, row):
    pytest.importorskip("arviz")
    with pytest.raises(IndexError, match=r"row must lie in \[0, 3\)"):
        result.to_arviz(row=row)


def test_arviz_is_optional(result, monkeypatch):
    actual = builtins.__import__

    def without_arviz(name, *rest, **options):
        if name.startswith("arviz"):
            raise ImportError("no arviz")
        return actual(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_arviz)
    for use in (result.diagnostics, result.to_arviz):
        with pytest.raises(ImportError, match=r"pip install vaefast\[all\]"):
            use()

"""Estimates of the metric's trace: unbiased, with standard errors that are those that occur."""

import math

import pytest
import torch
from scipy import stats

import vaefast as vf
from vaefast import geometry
from vaefast.geometry.estimators import chi_square_factor, hutchinson, hutchpp, xtrace
from vaefast.geometry.operators import DISTRIBUTIONS, Operator, probes_of
from vaefast.geometry.points import Points

ROWS = 4000


def diagonal(values):
    """JJᵀ = diag(values) for every row."""
    root = values.sqrt()
    return Operator(
        size=len(values),
        half=lambda u: u * root,
        back=lambda w: w * root,
        squares=lambda u: (u * root).square().sum(-1),
    )


def probes(size, count, distribution="gaussian"):
    points = Points(None, torch.zeros(ROWS, 1).double(), None, torch.arange(ROWS))
    return probes_of(points, size, count, 0, distribution)


SPECTRA = {
    "flat": torch.ones(12).double(),
    "falling": 1.0 / torch.arange(1, 13).double(),
    "steep": 3.0 ** -torch.arange(12).double(),
    "rank 1": torch.eye(12)[0].double(),
    "rank 3": torch.tensor([2.0, 1.0, 0.5] + [0.0] * 9).double(),
}
METHODS = {
    **{
        name: lambda op, k, d=name: hutchinson(
            op, probes(op.size, k, d), without_replacement=d == "orthogonal"
        )
        for name in DISTRIBUTIONS
    },
    "hutch++": lambda op, k: hutchpp(op, probes(op.size, k)),
    "xtrace": lambda op, k: xtrace(op, probes(op.size, k)),
}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("method", METHODS)
def test_unbiased_with_the_error_that_it_says(method, spectrum):
    """The mean over many rows is the trace, and the mean of error² the variance over the rows."""
    values = SPECTRA[spectrum]
    found = METHODS[method](diagonal(values), 6)
    trace, spread = values.sum().item(), found.value.std().item()
    assert found.value.mean().item() == pytest.approx(trace, abs=5 * spread / ROWS**0.5 + 1e-9)
    said = found.error.square().mean().sqrt().item()
    if method == "xtrace":  # the samples share their probes, so this one is an estimate of it
        assert 0.5 * spread - 1e-9 <= said <= 2.5 * spread + 1e-9
    else:
        assert said == pytest.approx(spread, rel=0.15, abs=1e-9)


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_all_orthogonal_probes_and_all_of_a_sketch_are_exact(spectrum):
    values = SPECTRA[spectrum]
    for method, count in (("orthogonal", 12), ("orthogonal", 30), ("hutch++", 36), ("xtrace", 12)):
        found = METHODS[method](diagonal(values), count)
        torch.testing.assert_close(found.value, values.sum().expand(ROWS))
        if method == "orthogonal":
            assert not found.error.any()


def test_variances_are_in_the_known_order():
    """Signs and the sphere have less than Gaussian probes, orthogonal ones less than those."""
    values = SPECTRA["falling"]
    error = {d: METHODS[d](diagonal(values), 6).value.std().item() for d in DISTRIBUTIONS}
    assert error["signs"] == pytest.approx(0.0, abs=1e-12)  # of a diagonal matrix
    assert error["orthogonal"] < 0.8 * error["sphere"]
    assert error["sphere"] < 0.9 * error["gaussian"]
    expected = (2 * values.square().sum() / 6).sqrt().item()
    assert error["gaussian"] == pytest.approx(expected, rel=0.05)


def test_sketches_win_on_a_steep_spectrum():
    op = diagonal(2.0 ** -torch.arange(40).double())
    error = {m: METHODS[m](op, 15).value.std().item() for m in ("gaussian", "hutch++", "xtrace")}
    assert error["hutch++"] < 0.1 * error["gaussian"]
    assert error["xtrace"] < 0.1 * error["hutch++"]


@pytest.mark.parametrize("K", [1, 2, 4, 16, 32])
def test_the_chi_square_bound_over_spectra(K):
    """The bound fails with probability at most α for any spectrum, up to α = P(χ²_K ≤ K)."""
    generator = torch.Generator().manual_seed(K)
    limit = float(stats.chi2.cdf(K, K))
    shares = [torch.ones(m).double() / m for m in (1, 2, 3, 5, 20)]
    for power in (0.5, 1.0, 2.0):
        falling = torch.arange(1, 21).double() ** -power
        shares.append(falling / falling.sum())
    shares += [torch.tensor([w, 1 - w]).double() for w in (0.6, 0.9, 0.99)]
    draws = 20_000
    chi = 2 * torch._standard_gamma(torch.full((draws, 20), 0.5 * K).double(), generator=generator)
    for alpha in (0.001, 0.05, 0.5, 0.999 * limit):
        quantile = 1.0 / chi_square_factor(K, 1 - alpha)
        noise = 4 * math.sqrt(alpha * (1 - alpha) / draws)
        for share in shares:
            failed = ((chi[:, : len(share)] @ share) < quantile).double().mean().item()
            assert failed <= alpha + noise


def test_the_chi_square_bound_is_false_above_its_threshold():
    """K = 2 at α = .7: .82 for 20 equal eigenvalues; it is refused there."""
    generator = torch.Generator().manual_seed(0)
    chi = 2 * torch._standard_gamma(torch.ones(20_000, 20).double(), generator=generator)
    failed = (chi.mean(1) < stats.chi2.ppf(0.7, 2)).double().mean().item()
    assert failed == pytest.approx(0.82, abs=0.02)
    with pytest.raises(
        ValueError, match=r"upper_confidence must lie in \[0.368, 1\) with 2 probes"
    ):
        chi_square_factor(2, 0.3)


@pytest.mark.parametrize(
    ("of", "std"),
    [
        ("encoder", False),
        ("encoder", True),
        ("decoder", False),
        ("reconstruction", False),
        ("reconstruction", True),
        ("fisher", False),
    ],
)
def test_the_exact_trace_is_the_sum_of_the_spectrum(vae, x, of, std):
    found = geometry.pullback_trace(vae, x, of=of, std=std, method="exact")
    values = geometry.pullback_spectrum(vae, x, of=of, std=std).eigenvalues
    torch.testing.assert_close(found.value, values.sum(1))
    assert not found.standard_error.any()
    assert (found.method, found.upper) == ("exact", None)


METRICS = [("encoder", False), ("decoder", False), ("reconstruction", False)]
METRICS += [("encoder", True), ("reconstruction", True), ("fisher", False)]


@pytest.mark.parametrize(("of", "std"), METRICS)
@pytest.mark.parametrize("method", ["hutchinson", "hutch++", "xtrace"])
def test_estimates_of_every_metric(vae, x, of, std, method):
    exact = geometry.pullback_trace(vae, x, of=of, std=std, method="exact").value
    found = geometry.pullback_trace(vae, x, of=of, std=std, method=method, probes=60, seed=3)
    off = (found.value - exact).abs()
    assert (off <= 6 * found.standard_error + 1e-6 * exact).all()
    assert found.method == method


def test_auto_says_what_it_took(build):
    vae, x = build("mlp"), torch.rand(2, 1, 4, 4).double()
    assert geometry.pullback_trace(vae, x).method == "exact"
    assert geometry.pullback_trace(vae, x).products == 3
    large = vf.models.MLPVAE((1, 4, 4), hidden=(8,), latent=200).double().eval()
    expected = {2: ("hutchinson", 2), 4: ("hutch++", 6), 8: ("xtrace", 12), 30: ("xtrace", 48)}
    for probes, taken in expected.items():
        found = geometry.pullback_trace(large, x, probes=probes)
        assert (found.method, found.products) == taken
    norm = geometry.frobenius_norm(large, x, method="auto", probes=30)
    torch.testing.assert_close(norm, found.value.sqrt())
    least = geometry.pullback_trace(large, x, probes=2)
    options = {"method": "hutchinson", "distribution": "orthogonal"}
    again = geometry.pullback_trace(large, x, probes=2, **options)
    assert torch.equal(least.value, again.value)
    assert geometry.pullback_trace(large, x, probes=60).method == "exact"  # 200 <= 2 * 100
    assert geometry.pullback_trace(large, x, probes=59).method == "xtrace"


def test_an_estimate_of_the_reconstruction_with_std_counts_the_diagonal_s_products(build):
    """One for each of 3 latents; "auto" takes the estimate where the exact trace takes more."""
    vae, x = build("mlp"), torch.rand(2, 1, 4, 4).double()
    options = {"of": "reconstruction", "std": True}
    found = geometry.pullback_trace(vae, x, **options, method="hutchinson", probes=5)
    assert found.products == 3 + 5
    large = vf.models.MLPVAE((1, 4, 4), hidden=(8,), latent=40).double().eval()
    found = geometry.pullback_trace(large, x, **options, probes=9)
    assert (found.method, found.products) == ("xtrace", 40 + 15)
    exact = geometry.pullback_trace(large, x, **options, method="exact")
    assert exact.products == 3 * 40
    assert (found.value - exact.value).abs().max() < 0.5 * exact.value.max()


def test_upper_is_the_chi_square_bound(build):
    vae, x = build("mlp"), torch.rand(3, 1, 4, 4).double()
    options = {"method": "hutchinson", "probes": 8, "upper_confidence": 0.999}
    found = geometry.pullback_trace(vae, x, **options)
    expected = found.value * 8 / stats.chi2.ppf(0.001, 8)
    torch.testing.assert_close(found.upper, expected)
    norm = geometry.frobenius_norm(vae, x, **options)
    torch.testing.assert_close(norm, expected.sqrt())


def test_one_probe_says_no_error_and_nan_rows_are_nan(build):
    vae, x = build("mlp"), torch.rand(3, 1, 4, 4).double()
    x[1, 0, 0, 0] = torch.nan
    found = geometry.pullback_trace(vae, x, method="hutchinson", probes=1)
    assert found.standard_error.isnan().all()
    assert found.value.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("distribution", ["signs", "sphere", "orthogonal"])
def test_only_gaussian_probes_have_a_bound(vae, x, distribution):
    with pytest.raises(ValueError, match=rf"the only probes with a bound; got .*{distribution}"):
        geometry.pullback_trace(
            vae, x, method="hutchinson", distribution=distribution, upper_confidence=0.9
        )
    with pytest.raises(ValueError, match='is for method="hutchinson", got method="xtrace"'):
        geometry.frobenius_norm(vae, x, method="xtrace", distribution=distribution)


def test_refuses(vae, x):
    with pytest.raises(ValueError, match="probes must be at least 2, got 1"):
        geometry.pullback_trace(vae, x, method="xtrace", probes=1)
    with pytest.raises(ValueError, match="distribution must be one of 'gaussian', 'signs'"):
        geometry.pullback_trace(vae, x, distribution="normal")
    with pytest.raises(TypeError, match="pullback_trace has no argument 'space'"):
        geometry.pullback_trace(vae, x, space="output")

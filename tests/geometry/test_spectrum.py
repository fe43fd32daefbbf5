"""The pullback metric's spectrum against the metric itself, formed from autograd's Jacobians."""

import math

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast import geometry
from vaefast.models import MLPVAE, VAE

OF = ("encoder", "decoder", "reconstruction")


def metric(maps, of, std):
    """G [B, n, n] as mathematics.md 3.1 writes it."""
    mean, sigma, decoder = (maps[name] for name in ("encoder", "std", "decoder"))
    if of == "encoder":
        return mean.mT @ mean + (sigma.mT @ sigma if std else 0.0)
    inner = decoder.mT @ decoder
    if of == "decoder":
        return inner
    diagonal = torch.diag_embed(inner.diagonal(dim1=1, dim2=2))
    return mean.mT @ inner @ mean + (sigma.mT @ diagonal @ sigma if std else 0.0)


def fisher(vae, maps, x):
    """J_μᵀΣ⁻¹J_μ + 2 J_log σᵀJ_log σ."""
    sigma = vae.posterior(x)[1].detach()[..., None]
    mean, std = maps["encoder"] / sigma, maps["std"] / sigma
    return mean.mT @ mean + 2 * std.mT @ std


def test_fisher_metric_of_the_posterior(vae, x, maps):
    G = fisher(vae, maps, x)
    result = geometry.pullback_spectrum(vae, x, of="fisher", vectors=2)
    m = 3 if vae.fixed_std else 6
    assert list(result.eigenvalues.shape) == [5, m]
    expected = torch.linalg.eigvalsh(G).flip(1)[:, :m]
    torch.testing.assert_close(result.eigenvalues, expected, rtol=1e-6, atol=1e-9)
    v = result.vectors.flatten(2)
    torch.testing.assert_close(
        G @ v.mT, v.mT * result.eigenvalues[:, None, :2], rtol=1e-6, atol=1e-8
    )


def test_fisher_metric_is_twice_the_divergence_of_a_small_step(vae, x):
    result = geometry.pullback_spectrum(vae, x, of="fisher")
    moved = x + 1e-4 * result.vectors[:, 0]
    with torch.no_grad():
        nats = vf.attacks.DIVERGENCES["skl"](*vae.encode(moved), *vae.encode(x))
    torch.testing.assert_close(2e8 * nats, result.eigenvalues[:, 0], rtol=2e-3, atol=0)


@pytest.mark.parametrize("std", [False, True])
def test_heads_of_one_network_have_the_spectrum_of_two(std):
    """Jointly from their Gram matrix in float32, and by their rows."""
    vae = MLPVAE((1, 4, 4), hidden=(12, 10), latent=3, activation="tanh", seed=1).eval()
    x = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for of in ("encoder", "reconstruction") if std else ("fisher",):
        found = geometry.pullback_spectrum(vae, x, of=of, std=std)
        exact = geometry.pullback_spectrum(vae.double(), x.double(), of=of, std=std)
        vae.float()
        torch.testing.assert_close(found.eigenvalues, exact.eigenvalues, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.vectors.double(), exact.vectors, rtol=1e-3, atol=1e-3)


CASES = [(of, std) for of in OF for std in (False, True) if not (of == "decoder" and std)]


@pytest.mark.parametrize(("of", "std"), CASES)
def test_eigenpairs_of_the_metric(vae, x, maps, of, std):
    G = metric(maps, of, std)
    result = geometry.pullback_spectrum(vae, x, of=of, std=std, vectors=3)
    m = 6 if std and not vae.fixed_std else 3
    assert list(result.eigenvalues.shape) == [5, m]
    expected = torch.linalg.eigvalsh(G).flip(1)
    m = min(m, expected.shape[1])
    torch.testing.assert_close(result.eigenvalues[:, :m], expected[:, :m], rtol=1e-6, atol=1e-12)
    assert (result.eigenvalues.diff(dim=1) <= 0).all()

    event = [3] if of == "decoder" else list(x.shape[1:])
    assert list(result.vectors.shape) == [5, 3, *event]
    v = result.vectors.flatten(2)
    torch.testing.assert_close(v @ v.mT, torch.eye(3).double().expand(5, 3, 3))
    torch.testing.assert_close(
        G @ v.mT, v.mT * result.eigenvalues[:, None, :3], rtol=1e-6, atol=1e-9
    )


def test_whitened_metric(vae, x, maps):
    std = vae.posterior(x)[1].detach()
    whitened = maps["encoder"] / std[..., None]
    result = geometry.pullback_spectrum(vae, x, whiten=True)
    torch.testing.assert_close(result.eigenvalues, torch.linalg.svdvals(whitened).square())
    right = torch.linalg.svd(whitened, full_matrices=False).Vh[:, 0]
    cosine = (right * result.vectors.flatten(1)).sum(1)
    torch.testing.assert_close(cosine.abs(), torch.ones(5).double())


def test_the_stochastic_metric_is_the_mean_over_the_noise(build):
    """E_ε[J_zᵀJ_z] of z = μ + σε, and not the d×d sum J_μJ_μᵀ + J_σJ_σᵀ of the released code."""
    vae = build("mlp")
    x = torch.rand(1, 1, 4, 4).double()
    generator = torch.Generator().manual_seed(0)

    def sample(noise):
        def latent(v):
            mean, std = vae.posterior(v)
            return (mean + std * noise)[0]

        return latent

    total = torch.zeros(16, 16).double()
    for _ in range(2000):
        noise = torch.randn(3, generator=generator, dtype=torch.float64)
        J = torch.autograd.functional.jacobian(sample(noise), x).reshape(3, 16)
        total += J.T @ J / 2000
    expected = torch.linalg.eigvalsh(total).flip(0)[:6]
    result = geometry.pullback_spectrum(vae, x, std=True).eigenvalues[0]
    torch.testing.assert_close(result, expected, rtol=0.1, atol=0.02 * expected[0].item())


def test_vectors_have_a_fixed_sign(vae, x):
    v = geometry.pullback_spectrum(vae, x, vectors=2).vectors.flatten(2)
    peak = v.gather(2, v.abs().argmax(2, keepdim=True))
    assert (peak > 0).all()


def test_nan_and_chunks(vae, x):
    whole = geometry.pullback_spectrum(vae, x, std=True, vectors=2)
    x[3, 0, 1, 1] = torch.nan
    vf.set_memory(20_000)
    parts = geometry.pullback_spectrum(vae, x, std=True, vectors=2)
    assert parts.eigenvalues[3].isnan().all()
    assert parts.vectors[3].isnan().all()
    good = [0, 1, 2, 4]
    torch.testing.assert_close(parts.eigenvalues[good], whole.eigenvalues[good])
    torch.testing.assert_close(parts.vectors[good], whole.vectors[good])


def encoder_with(singular):
    """A linear encoder on R^5 whose Jacobian has the given singular values."""
    d = len(singular)
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(5, d, generator=generator, dtype=torch.float64)).Q
    mean = nn.Linear(5, d, bias=False).double()
    mean.weight.data = left @ torch.diag(torch.tensor(singular).double()) @ right.T
    return VAE(
        encoder_mean=mean,
        encoder_logvar=torch.zeros(d).double(),
        decoder=nn.Linear(d, 5).double(),
        likelihood="gaussian",
    ).eval()


def test_scores_of_a_known_spectrum():
    singular = [2.0, 1.0, 0.5]
    values = [s * s for s in singular]
    scores = geometry.robustness_scores(encoder_with(singular), torch.zeros(2, 5).double())
    by_max = -sum(v / 4 * math.log(v / 4) for v in values)
    by_sum = -sum(v / 5.25 * math.log(v / 5.25) for v in values)
    assert scores.spectral_radius.tolist() == pytest.approx([4.0] * 2)
    assert scores.entropy_max.tolist() == pytest.approx([by_max] * 2)
    assert scores.entropy_density.tolist() == pytest.approx([by_sum] * 2)


def test_published_scores_are_of_singular_values():
    singular = [2.0, 1.0, 0.5]
    vae, x = encoder_with(singular), torch.zeros(2, 5).double()
    scores = geometry.robustness_scores(vae, x, variant="khan2023")
    by_max = -sum(s / 2 * math.log(s / 2) for s in singular)
    by_sum = -sum(s / 3.5 * math.log(s / 3.5) for s in singular)
    assert scores.variant == "khan2023"
    assert scores.spectral_radius.tolist() == pytest.approx([2.0] * 2)
    assert scores.entropy_max.tolist() == pytest.approx([by_max] * 2)
    assert scores.entropy_density.tolist() == pytest.approx([by_sum] * 2)
    assert geometry.robustness_scores(vae, x).variant is None


def test_published_scores_know_small_singular_values_in_float32():
    """√λ of a Gram matrix in float32 is 3e-4 of the largest where σ is 0."""
    vae = MLPVAE((1, 4, 4), hidden=(16,), latent=8, seed=0).eval()
    with torch.no_grad():
        vae.encoder.mean.weight[2:] = 1e-6 * torch.randn(6, 16)
    x = torch.rand(4, 1, 4, 4)
    found = geometry.robustness_scores(vae, x, variant="khan2023").entropy_max
    exact = geometry.robustness_scores(vae.double(), x.double(), variant="khan2023").entropy_max
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("of", ["decoder", "reconstruction", "fisher"])
def test_published_scores_of_every_metric(vae, x, of):
    singular = geometry.pullback_spectrum(vae, x, of=of, vectors=0).eigenvalues.sqrt()
    scores = geometry.robustness_scores(vae, x, of=of, variant="khan2023")
    torch.testing.assert_close(scores.spectral_radius, singular[:, 0])
    share = torch.special.entr(singular / singular[:, :1]).sum(1)
    torch.testing.assert_close(scores.entropy_max, share, rtol=1e-5, atol=1e-5)


def test_density_entropy_is_largest_for_equal_eigenvalues_and_scale_free():
    x = torch.zeros(1, 5).double()
    equal = geometry.robustness_scores(encoder_with([3.0] * 4), x)
    assert equal.entropy_density.item() == pytest.approx(math.log(4))
    assert equal.entropy_max.item() == pytest.approx(0.0, abs=1e-9)
    one = geometry.robustness_scores(encoder_with([1.0, 0.3]), x)
    ten = geometry.robustness_scores(encoder_with([10.0, 3.0]), x)
    torch.testing.assert_close(one.entropy_density, ten.entropy_density)
    torch.testing.assert_close(one.entropy_max, ten.entropy_max)


@pytest.mark.parametrize(("of", "std"), CASES)
def test_scores_come_from_the_spectrum(vae, x, of, std):
    x[0, 0, 0, 0] = torch.nan
    values = geometry.pullback_spectrum(vae, x, of=of, std=std).eigenvalues
    scores = geometry.robustness_scores(vae, x, of=of, std=std)
    torch.testing.assert_close(scores.spectral_radius, values[:, 0], equal_nan=True)
    for score in (scores.entropy_max, scores.entropy_density):
        assert score.isnan().tolist() == [True, False, False, False, False]
        assert (score[1:] >= 0).all()


def test_a_map_that_does_not_move_has_no_direction_and_score_0():
    vae, x = encoder_with([0.0, 0.0]), torch.zeros(2, 5).double()
    result = geometry.pullback_spectrum(vae, x, vectors=2)
    assert torch.equal(result.vectors, torch.zeros(2, 2, 5).double())
    scores = geometry.robustness_scores(vae, x)
    for score in (scores.spectral_radius, scores.entropy_max, scores.entropy_density):
        assert torch.equal(score, torch.zeros(2).double())


def test_undetermined_directions_are_0():
    result = geometry.pullback_spectrum(
        encoder_with([1.0, 0.0]).float(), torch.zeros(1, 5), vectors=2
    )
    lengths = result.vectors[0].norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([1.0, 0.0]))


def test_empty_batch(vae, x):
    result = geometry.pullback_spectrum(vae, x[:0], vectors=2)
    assert result.eigenvalues.shape == (0, 3)
    assert list(result.vectors.shape) == [0, 2, *x.shape[1:]]


def test_refuses(vae, x):
    with pytest.raises(ValueError, match="vectors must be at most 3, got 4"):
        geometry.pullback_spectrum(vae, x, vectors=4)
    with pytest.raises(ValueError, match=r'std=True .* got of="decoder"'):
        geometry.pullback_spectrum(vae, x, of="decoder", std=True)
    with pytest.raises(ValueError, match="needs std=False"):
        geometry.pullback_spectrum(vae, x, std=True, whiten=True)
    with pytest.raises(ValueError, match="of must be one of"):
        geometry.robustness_scores(vae, x, of="latent")
    with pytest.raises(ValueError, match="holds the std's terms already: leave std out"):
        geometry.pullback_spectrum(vae, x, of="fisher", std=True)
    with pytest.raises(ValueError, match=r"whiten=True .* needs of=\"encoder\""):
        geometry.pullback_spectrum(vae, x, of="fisher", whiten=True)
    with pytest.raises(ValueError, match="variant must be one of None, 'khan2023', got 'khan'"):
        geometry.robustness_scores(vae, x, variant="khan")


@pytest.mark.parametrize("name", ["pullback_spectrum", "robustness_scores", "jacobian"])
def test_the_old_name_of_of_is_refused_with_the_new_one(vae, x, name):
    message = rf"{name} has no argument 'space'; pass of= in its place, got space='output'"
    with pytest.raises(TypeError, match=message):
        getattr(geometry, name)(vae, x, space="output")

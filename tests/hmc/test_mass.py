"""Masses: what they are, that the chains stay exact with them, that nothing is pooled over rows."""

import itertools

import pytest
import torch
from gaussians import two_latents

from vaefast.functional.hmc import Draws, State
from vaefast.hmc import sample
from vaefast.hmc.adaptation import DualAveraging
from vaefast.hmc.mass import pullback
from vaefast.hmc.start import metric_from
from vaefast.hmc.target import NetworkTarget
from vaefast.hmc.whitened import Whitened
from vaefast.hmc.windows import inverse_mass_of, window, windows
from vaefast.models.prepare import prepare
from vaefast.types import Network

A = torch.tensor([[1.0, 0.2, 0.0], [0.3, 2.0, 0.1], [0.0, -0.4, 0.3], [0.5, 0.0, 0.0]]).double()
SHORT = {"chains": 4, "steps": 20, "warmup": 30, "leapfrog": 3, "seed": 5}
CLOSE = {"rtol": 1e-6, "atol": 1e-8}


def images(rows, D=6):
    return torch.rand(rows, D, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("generic", [False, True])
def test_the_pullback_of_a_linear_decoder_is_the_posteriors_precision(linear_gaussian, generic):
    model = linear_gaussian(A, rows=2, generic=generic)
    rows = prepare(model.vae, model.x)
    found = pullback(rows.maps, torch.randn(2, 3).double(), model.x)
    precision = torch.linalg.inv(model.covariance)
    torch.testing.assert_close(found, precision.expand(2, 3, 3), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli", "clamped_bernoulli"])
def test_the_pullback_is_the_expected_hessian(mlp_vae, likelihood):
    """I + JᵀΛJ, Λ the variance of x given its natural parameter."""
    vae, x = mlp_vae(likelihood), images(3)
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(1)).double()
    found = pullback(prepare(vae, x).maps, z, x)
    kind = torch.distributions.Bernoulli
    if likelihood == "continuous_bernoulli":
        kind = torch.distributions.ContinuousBernoulli
    for row in range(3):
        J = torch.autograd.functional.jacobian(lambda at: vae.decode(at[None])[0], z[row])
        variance = kind(logits=vae.decode(z[row : row + 1]).detach()[0]).variance
        expected = torch.eye(2) + J.T @ (variance[:, None] * J)
        torch.testing.assert_close(found[row], expected, rtol=1e-6, atol=1e-9)


def test_windows_double_and_fill_the_warm_up():
    assert windows(19) == []
    assert windows(100) == [(15, 90)]
    assert window(300) == [(90, 195)]
    assert window(1) == []
    assert windows(300) == [(75, 100), (100, 150), (150, 250)]
    assert windows(1000) == [(75, 100), (100, 150), (150, 250), (250, 450), (450, 950)]
    for warmup in range(150, 2000, 37):
        found = windows(warmup)
        assert found[0][0] == 75
        assert found[-1][1] == warmup - 50
        assert all(first[1] == second[0] for first, second in itertools.pairwise(found))


def test_a_window_gives_the_variance_of_each_row():
    draws = torch.randn(2, 4000, 3, generator=torch.Generator().manual_seed(0)).double()
    scale = torch.tensor([[1.0, 10.0, 0.1], [2.0, 1.0, 5.0]]).double()
    found = inverse_mass_of(draws * scale[:, None])
    torch.testing.assert_close(found, scale.square(), rtol=0.1, atol=0)
    assert inverse_mass_of(torch.zeros(1, 1, 3)).isfinite().all()  # a single draw has no variance


def narrow():
    """A Gaussian posterior with scales 1 and 1/40, and an encoder that does not know it."""
    vae = two_latents(40.0)
    with torch.no_grad():
        vae.encoder.mean.weight.zero_()
        vae.encoder.mean.bias.zero_()
    return vae


@pytest.mark.parametrize("mass", ["pullback", "dense", "warmup"])
def test_a_mass_makes_a_narrow_posterior_round(mass):
    x = torch.zeros(1, 1).double()
    given = {"chains": 4, "warmup": 150, "steps": 20, "leapfrog": 4}
    unit, found = (sample(narrow(), x, mass=name, **given) for name in ("unit", mass))
    assert found.step_size > 10 * unit.step_size


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("mass", ["dense", "warmup", "pullback"])
def test_both_paths_and_any_batch_give_the_same_row(mlp_vae, mass, generic):
    vae, x = mlp_vae(generic=generic), images(4)
    index = torch.tensor([4, 17, 3, 0])
    given = {**SHORT, "mass": mass, "leapfrog": "chees", "chains": 8, "warmup": 60}
    batch = sample(vae, x, index=index, **given)
    other = sample(mlp_vae(generic=not generic), x, index=index, **given)
    torch.testing.assert_close(batch.z, other.z, rtol=1e-4, atol=1e-4)
    for row in range(4):
        alone = sample(vae, x[row : row + 1], index=index[row : row + 1], **given)
        torch.testing.assert_close(alone.z[0], batch.z[row], **CLOSE)
        torch.testing.assert_close(alone.step_size[0], batch.step_size[row], **CLOSE)
        assert alone.leapfrog[0] == batch.leapfrog[row]


@pytest.mark.parametrize("leapfrog", [3, "chees"])
@pytest.mark.parametrize("mass", ["dense", "warmup", "pullback"])
def test_nothing_is_learnt_after_the_warm_up(mlp_vae, mass, leapfrog):
    given = {**SHORT, "mass": mass, "leapfrog": leapfrog, "chains": 8, "warmup": 60}
    short, long = (sample(mlp_vae(), images(3), **{**given, "steps": n}) for n in (5, 40))
    torch.testing.assert_close(short.step_size, long.step_size)
    torch.testing.assert_close(short.z, long.z[:, :, :5], **CLOSE)
    assert torch.equal(short.leapfrog, long.leapfrog)


@pytest.mark.parametrize("progress", [False, True])
def test_a_progress_bar_and_thinning_change_no_mass(mlp_vae, progress):
    every = sample(mlp_vae(), images(3), mass="warmup", **SHORT)
    some = sample(mlp_vae(), images(3), mass="warmup", keep=5, progress=progress, **SHORT)
    torch.testing.assert_close(some.z, every.z[:, :, 3::4], **CLOSE)


def test_a_dense_mass_is_taken_anew_where_the_chains_are(mlp_vae, monkeypatch):
    seen, vae, x = [], mlp_vae(), images(3)

    def spy(mass, rows, draws):
        seen.append(draws)
        return metric_from(mass, rows, draws)

    monkeypatch.setattr("vaefast.hmc.sampler.metric_from", spy)
    sample(vae, x, mass="dense", **SHORT)
    assert not seen  # a warm-up this short has other things to learn
    sample(vae, x, mass="dense", **{**SHORT, "warmup": 60})
    (draws,) = seen
    assert draws.shape == (3, 4 * 21, 2)  # transitions 18 to 39
    rows = prepare(vae, x)
    found = metric_from("dense", rows, draws)
    precision = pullback(rows.maps, draws.mean(1), x)
    torch.testing.assert_close(found.root @ found.root.mT, torch.linalg.inv(precision), **CLOSE)
    torch.testing.assert_close(found.inv_mass, found.root.square().sum(2))


def whitened(vae, root, leapfrog=7):
    net = prepare(vae, images(2)).maps.decoder.lowered
    inside = NetworkTarget(images(2), Network(*net), "bernoulli", (), None, leapfrog, "ieee", None)
    return Whitened(inside, root, leapfrog)


class Unfused:
    """A target's potential and nothing else of it."""

    def __init__(self, target):
        self.potential = target.potential


def start():
    generator = torch.Generator().manual_seed(2)
    z, p = (torch.randn(4, 2, generator=generator).double() for _ in range(2))
    root = torch.tensor([[[0.5, 0.7], [0.0, 1.2]], [[1.0, -0.4], [0.0, 0.3]]]).double()
    return z, p, root


def test_a_dense_trajectory_is_reversible(mlp_vae):
    z, p, root = start()
    moving, step = whitened(mlp_vae(), root), torch.tensor([0.1, 0.1, 0.2, 0.2]).double()
    _, grad = moving.potential(z)
    end, p_end, grad_end, _ = moving.trajectory()(z, p, grad, step=step)
    back, p_back, *_ = moving.trajectory()(end, -p_end, grad_end, step=step)
    assert (end - z).abs().min() > 1e-3
    torch.testing.assert_close(back, z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(-p_back, p, rtol=1e-9, atol=1e-9)
    u = moving.whitened(z).view(2, 2, 2)
    torch.testing.assert_close((u @ root.mT).view(4, 2), z)


def test_a_diagonal_root_is_the_diagonal_mass(mlp_vae):
    """Of momenta p = S⁻ᵀq."""
    z, q, _ = start()
    scale = torch.tensor([[0.5, 1.2], [1.0, 0.3]]).double()
    dense, step = whitened(mlp_vae(), torch.diag_embed(scale)), torch.full((4,), 0.1).double()
    inside = dense.inside
    plain = NetworkTarget(inside.x, inside.net, "bernoulli", (), scale.square(), 7, "ieee", None)
    _, grad = dense.potential(z)
    each = scale.repeat_interleave(2, 0)
    z_end, q_end, *_ = dense.trajectory()(z, q, grad, step=step)
    plain_end, p_end, *_ = plain.trajectory()(z, q / each, grad, step=step)
    torch.testing.assert_close(z_end, plain_end, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(q_end, p_end * each, rtol=1e-9, atol=1e-9)


def test_a_fused_dense_chain_is_the_loop(mlp_vae):
    z, _, root = start()
    fused = whitened(mlp_vae(), root, leapfrog=5)
    loop = Whitened(Unfused(fused.inside), root, 5)
    assert fused.fused is not None
    assert loop.fused is None
    draws, step = Draws(torch.arange(2), 3, 0.3), torch.tensor([0.3, 0.9]).double()
    state, span = State(z, *fused.potential(z)), {"first_step": 2, "steps": 9, "thin": 1}
    found, expected = (target.run(state, draws, step, **span) for target in (fused, loop))
    torch.testing.assert_close(tuple(found), tuple(expected), rtol=1e-10, atol=1e-10)
    assert 0 < found.accepted.sum() < 36
    learnt = [DualAveraging(step) for _ in range(2)]
    ends = [t.run(state, draws, own, **span) for t, own in zip((fused, loop), learnt)]
    torch.testing.assert_close(tuple(ends[0]), tuple(ends[1]), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(*(own.average for own in learnt))


def test_a_row_whose_metric_is_not_finite_fails_alone(mlp_vae):
    x = images(3)
    x[1] = torch.nan
    clean = sample(mlp_vae(), images(3), mass="dense", **SHORT)
    result = sample(mlp_vae(), x, mass="dense", **SHORT)
    assert result.failed.tolist() == [False, True, False]
    torch.testing.assert_close(result.z[2], clean.z[2], **CLOSE)


def test_errors(mlp_vae):
    vae = mlp_vae(d=70)
    with pytest.raises(ValueError, match='mass="dense" takes at most 64 latents, got 70; use'):
        sample(vae, images(2), mass="dense", **SHORT)
    with pytest.raises(ValueError, match="target_accept must lie in"):
        sample(vae, images(2), target_accept=1.0)

"""The chains: both paths, rows, random numbers, chunks, kept draws, starts, step sizes."""

import pytest
import torch
from torch import nn

from vaefast.hmc import sample
from vaefast.models.vae import VAE
from vaefast.philox import Use, normal

FIELDS = ("z", "accept_rate", "step_size", "energy", "divergent", "failed", "unresolved")
LIKELIHOODS = ("bernoulli", "gaussian", "continuous_bernoulli", "clamped_bernoulli")
SHORT = {"chains": 2, "steps": 20, "warmup": 8, "leapfrog": 4, "seed": 5}
CLOSE = {"rtol": 1e-6, "atol": 1e-8}


def images(rows, D=6, dtype=torch.float64, seed=0):
    return torch.rand(rows, D, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_same(a, b, **tolerance):
    for field in FIELDS:
        torch.testing.assert_close(
            getattr(a, field), getattr(b, field), **tolerance, equal_nan=True, msg=field
        )


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mass": "posterior", "keep": "last"},
        {"mass": torch.tensor([[0.5, 2.0], [1.0, 1.0], [3.0, 0.2]]), "keep": 5, "jitter": 0.5},
        {"schedule": "kuzina2022", "group": 3, "warmup": None, "keep": "all"},
        {"adapt": None, "step_size": torch.tensor([0.1, 0.2, 0.3])},
    ],
)
def test_both_paths_give_the_same_chain(mlp_vae, likelihood, options):
    x, options = images(3), {**SHORT, **options}
    lowered = sample(mlp_vae(likelihood), x, **options)
    generic = sample(mlp_vae(likelihood, generic=True), x, **options)
    assert_same(lowered, generic, rtol=1e-5, atol=1e-5)  # the chain amplifies round-off
    assert 0 < lowered.accept_rate.mean() <= 1


def test_a_transition_costs_exactly_its_leapfrogs(mlp_vae):
    def calls(warmup, steps):
        vae = mlp_vae(generic=True)
        sample(vae, images(3), chains=2, warmup=warmup, steps=steps, leapfrog=7)
        return vae.decoder.calls

    assert calls(5, 10) - calls(0, 10) == 5 * 7
    assert calls(0, 10) - calls(0, 4) == 6 * 7
    # a trace, two looks whether it is a function of its row, a first look, its memory's measure,
    # the start's energy and its rounding at the end
    assert calls(0, 1) - 7 == 7


def test_a_row_does_not_depend_on_its_batch(mlp_vae):
    vae, x = mlp_vae(), images(5)
    index = torch.tensor([4, 17, 3, 1 << 43, 0])
    batch = sample(vae, x, index=index, **SHORT)
    for row in range(5):
        alone = sample(vae, x[row : row + 1], index=index[row : row + 1], **SHORT)
        for field in FIELDS:
            torch.testing.assert_close(
                getattr(alone, field)[0], getattr(batch, field)[row], **CLOSE
            )


def test_index_and_seed_name_the_random_numbers(mlp_vae):
    vae, x = mlp_vae(), images(1).expand(3, 6)
    same = sample(vae, x, index=torch.tensor([2, 2, 5]), **SHORT)
    torch.testing.assert_close(same.z[0], same.z[1], **CLOSE)
    assert not torch.allclose(same.z[0], same.z[2])
    assert not torch.allclose(same.z[0, 0], same.z[0, 1])  # two chains of one row
    other = sample(vae, x, index=torch.tensor([2, 2, 5]), **{**SHORT, "seed": 6})
    assert not torch.allclose(same.z, other.z)
    again = sample(vae, x, index=torch.tensor([2, 2, 5]), **SHORT)
    torch.testing.assert_close(same.z, again.z, rtol=0, atol=0)


@pytest.mark.parametrize("generic", [False, True])
def test_memory_chunks_change_nothing(mlp_vae, budget, generic):
    vae, x = mlp_vae(generic=generic), images(40)
    options = {**SHORT, "keep": "last"}
    whole = sample(vae, x, **options)
    budget(40_000)
    cut = sample(vae, x, **options)
    assert_same(whole, cut, **CLOSE)
    if generic:
        assert max(vae.decoder.rows[-20:]) < 80  # 40 inputs, 2 chains


def test_a_result_that_cannot_fit_is_refused(mlp_vae, budget):
    vae = mlp_vae(generic=True)
    budget(100_000)
    with pytest.raises(MemoryError, match='keep="last"'):
        sample(vae, images(40), steps=1000, warmup=0)
    assert vae.decoder.calls == 1  # the first look at what it returns
    assert sample(vae, images(40), steps=2, warmup=0, keep="last").z.shape == (40, 1, 1, 2)
    budget(100)
    assert sample(vae, images(40), steps=1, warmup=0, leapfrog=1).z.shape == (40, 1, 1, 2)


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("schedule", [None, "kuzina2022"])
@pytest.mark.parametrize("cut", [None, "for a progress bar", "at every kept draw"])
def test_keep_selects_among_the_same_draws(mlp_vae, generic, warmup, schedule, cut, monkeypatch):
    monkeypatch.setattr("vaefast.hmc.spans.SEGMENTS", 5)  # of 8 transitions, as in longer chains
    if cut == "at every kept draw":
        monkeypatch.setattr("vaefast.hmc.plan.op_thin", lambda *arguments: 0)
    vae, x = mlp_vae(generic=generic), images(3)
    options = {**SHORT, "steps": 42, "leapfrog": 2, "schedule": schedule, "warmup": warmup}
    if schedule:
        del options["warmup"]
    every = sample(vae, x, **options, keep="all")
    assert every.z.shape == (3, 2, 42, 2)
    for keep in ("last", 5, 21, 30):
        kept = 1 if keep == "last" else keep
        at = range(41 - 42 // kept * (kept - 1), 42, 42 // kept)
        some = sample(vae, x, **options, keep=keep, progress=cut == "for a progress bar")
        at = torch.as_tensor(list(at))
        torch.testing.assert_close(some.z, every.z[:, :, at], **CLOSE)
        torch.testing.assert_close(some.energy, every.energy[:, :, at], **CLOSE)
        torch.testing.assert_close(some.accept_rate, every.accept_rate)
        assert torch.equal(some.divergent, every.divergent)


def test_starts(mlp_vae):
    """Without a transition that moves, the first draw is the start."""
    vae, x = mlp_vae(), images(3)
    still = {"chains": 2, "steps": 1, "warmup": 0, "leapfrog": 1, "step_size": 1e-12, "adapt": None}
    shared, own = torch.randn(3, 2).double(), torch.randn(3, 2, 2).double()
    at = sample(vae, x, init=shared, **still).z[:, :, 0]
    torch.testing.assert_close(at, shared[:, None].expand(3, 2, 2))
    torch.testing.assert_close(sample(vae, x, init=own, **still).z[:, :, 0], own)
    index = torch.tensor([9, 8, 7])
    drawn = sample(vae, x, index=index, seed=3, **still).z[:, :, 0]
    mean, std = vae.posterior(x)
    for chain in range(2):
        noise = normal(2, seed=3, index=index, lane=chain, use=Use.INITIAL)
        torch.testing.assert_close(drawn[:, chain], (mean + std * noise).detach())


def test_the_callers_start_is_not_written_to(mlp_vae):
    init = torch.randn(3, 2, 2).double()
    before = init.clone()
    for generic in (False, True):
        sample(mlp_vae(generic=generic), images(3), init=init, **SHORT)
    assert torch.equal(init, before)


def test_rows_of_different_scale_get_different_step_sizes():
    """log p(x|z) with x in units of the row: the sharper posterior needs the smaller step."""
    vae = VAE(
        encoder_mean=nn.Linear(1, 1),
        encoder_logvar=torch.zeros(1),
        decoder=Square(),
        likelihood="gaussian",
    ).double()
    x = torch.tensor([[0.0], [2500.0]]).double()  # curvature about 1 and 10⁴ at the mode
    init = torch.tensor([[0.5], [50.0]]).double()
    result = sample(vae, x, init=init, warmup=250, steps=150, leapfrog=4, chains=4)
    assert result.step_size[0] > 30 * result.step_size[1]
    assert ((result.accept_rate.mean(1) - 0.8).abs() < 0.1).all()


class Square(nn.Module):
    def forward(self, z):
        return z.square()


def test_adaptation_reaches_its_target_on_every_row(mlp_vae):
    result = sample(mlp_vae(d=4, D=12), images(8, 12), chains=4, warmup=250, steps=200, leapfrog=5)
    assert ((result.accept_rate.mean(1) - 0.8).abs() < 0.1).all()
    assert result.step_size.unique().numel() == 8


def test_adaptation_pools_the_chains_of_a_row_only(mlp_vae):
    """A second, different row changes nothing; a second chain does."""
    vae, x = mlp_vae(), images(2)
    one = sample(vae, x[:1], **{**SHORT, "chains": 1})
    two = sample(vae, x, **{**SHORT, "chains": 1})
    torch.testing.assert_close(one.step_size, two.step_size[:1], **CLOSE)
    assert sample(vae, x, **SHORT).step_size[0] != two.step_size[0]


def test_posterior_mass_is_the_precision_of_the_encoder(mlp_vae):
    vae, x = mlp_vae(), images(3)
    _, std = vae.posterior(x)
    named = sample(vae, x, mass="posterior", **SHORT)
    given = sample(vae, x, mass=(1 / std.square()).detach(), **SHORT)
    assert_same(named, given, **CLOSE)
    assert not torch.allclose(named.z, sample(vae, x, **SHORT).z)


def test_the_step_size_is_frozen_after_the_warm_up(mlp_vae):
    vae, x = mlp_vae(), images(3)
    short, long = (sample(vae, x, **{**SHORT, "steps": steps}) for steps in (5, 50))
    torch.testing.assert_close(short.step_size, long.step_size)
    torch.testing.assert_close(short.z, long.z[:, :, :5], **CLOSE)
    fixed = sample(vae, x, **{**SHORT, "adapt": None, "step_size": 0.07})
    torch.testing.assert_close(fixed.step_size, torch.full((3,), 0.07, dtype=torch.float64))


def test_one_jitter_per_row_and_transition(mlp_vae, monkeypatch):
    from vaefast import ops

    steps = []
    leapfrog_step = ops.leapfrog_step

    def spy(z, p, grad, step, **options):
        steps.append(step.clone())
        leapfrog_step(z, p, grad, step, **options)

    monkeypatch.setattr(ops, "leapfrog_step", spy)
    options = {
        "chains": 2,
        "warmup": 0,
        "steps": 200,
        "leapfrog": 3,
        "step_size": 0.1,
        "adapt": None,
    }
    sample(mlp_vae(generic=True), images(3), jitter=0.3, **options)
    kicks = torch.stack(steps)[: 200 * 4]  # then come those whose energy error is looked at
    used = kicks.view(200, 4, 3, 2) / 0.1  # [T, kicks, B, C]
    assert (used == used[:, :1, :, :1]).all()  # along the trajectory, and for the row's chains
    factor = used[:, 0, :, 0]
    assert factor.unique().numel() == 600
    assert (factor > 0.7).all()
    assert (factor < 1.3).all()
    assert abs(factor.mean() - 1) < 4 * 0.3 / 3**0.5 / 600**0.5
    assert abs(factor.std() - 0.3 / 3**0.5) < 0.02

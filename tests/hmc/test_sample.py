"""The sampler's promises: rows, paths, counts, chunks, starts, bad rows, the caller's model."""

import pytest
import torch
from torch import nn

from vaefast.hmc import sample
from vaefast.models.vae import VAE
from vaefast.philox import Use, normal, uniform

FIELDS = ("z", "accept_rate", "step_size", "energy", "divergent", "failed")
LIKELIHOODS = ("bernoulli", "gaussian", "continuous_bernoulli", "clamped_bernoulli")


def images(rows, D=6, dtype=torch.float64, seed=0):
    return torch.rand(rows, D, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_same(a, b, **tolerance):
    for field in FIELDS:
        torch.testing.assert_close(
            getattr(a, field), getattr(b, field), **tolerance, equal_nan=True, msg=field
        )


SHORT = {"chains": 2, "steps": 20, "warmup": 8, "leapfrog": 4, "seed": 5}
CLOSE = {"rtol": 1e-6, "atol": 1e-8}


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
    assert_same(lowered, generic, **CLOSE)
    assert 0 < lowered.accept_rate.mean() <= 1


def test_a_transition_costs_exactly_its_leapfrogs(mlp_vae):
    def calls(warmup, steps):
        vae = mlp_vae(generic=True)
        sample(vae, images(3), chains=2, warmup=warmup, steps=steps, leapfrog=7)
        return vae.decoder.calls

    assert calls(5, 10) - calls(0, 10) == 5 * 7
    assert calls(0, 10) - calls(0, 4) == 6 * 7
    assert calls(0, 1) - 7 == 2  # one to measure its memory, one for the start's energy


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


def test_memory_chunks_keep_groups_whole(mlp_vae, budget):
    vae, x = mlp_vae(), images(40)
    group = torch.arange(40) % 8  # groups of 5 that do not stand together
    options = {"schedule": "kuzina2022", "steps": 20, "group": group, "seed": 1}
    whole = sample(vae, x, **options)
    budget(100_000)
    assert_same(whole, sample(vae, x, **options), **CLOSE)


def test_a_result_that_cannot_fit_is_refused(mlp_vae, budget):
    vae = mlp_vae(generic=True)
    budget(100_000)
    with pytest.raises(MemoryError, match='keep="last"'):
        sample(vae, images(40), steps=1000, warmup=0)
    assert vae.decoder.calls == 0
    assert sample(vae, images(40), steps=2, warmup=0, keep="last").z.shape == (40, 1, 1, 2)
    budget(100)
    assert sample(vae, images(40), steps=1, warmup=0, leapfrog=1).z.shape == (40, 1, 1, 2)


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("schedule", [None, "kuzina2022"])
def test_keep_selects_among_the_same_draws(mlp_vae, generic, warmup, schedule, monkeypatch):
    monkeypatch.setattr("vaefast.hmc.chain.SEGMENTS", 5)  # segments of 8, as in longer chains
    vae, x = mlp_vae(generic=generic), images(3)
    options = {**SHORT, "steps": 42, "leapfrog": 2, "schedule": schedule, "warmup": warmup}
    if schedule:
        del options["warmup"]
    every = sample(vae, x, **options, keep="all")
    assert every.z.shape == (3, 2, 42, 2)
    for keep in ("last", 5, 21, 30):
        kept = 1 if keep == "last" else keep
        at = range(41 - 42 // kept * (kept - 1), 42, 42 // kept)
        some = sample(vae, x, **options, keep=keep)
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
    used = torch.stack(steps).view(200, 4, 3, 2) / 0.1  # [T, kicks, B, C]
    assert (used == used[:, :1, :, :1]).all()  # along the trajectory, and for the row's chains
    factor = used[:, 0, :, 0]
    assert factor.unique().numel() == 600
    assert (factor > 0.7).all()
    assert (factor < 1.3).all()
    assert abs(factor.mean() - 1) < 4 * 0.3 / 3**0.5 / 600**0.5
    assert abs(factor.std() - 0.3 / 3**0.5) < 0.02


@pytest.mark.parametrize("generic", [False, True])
def test_divergent_transitions_are_rejected_and_counted(mlp_vae, generic):
    vae, x = mlp_vae("gaussian", generic=generic), images(3)
    init = torch.zeros(3, 2).double()
    step_size = torch.tensor([0.05, 1e4, 1e200], dtype=torch.float64)
    result = sample(
        vae, x, init=init, chains=2, warmup=3, steps=10, step_size=step_size, adapt=None
    )
    assert result.divergent.tolist() == [[0, 0], [10, 10], [10, 10]]
    assert (result.accept_rate[1:] == 0).all()
    assert (result.z[1:] == 0).all()
    assert result.accept_rate[0].min() > 0.5
    assert not result.failed.any()


@pytest.mark.parametrize("generic", [False, True])
def test_divergent_means_an_energy_error_above_1000(linear_gaussian, generic):
    """One leapfrog from 0 on N(0, 1): the energy error is p²ε⁴/8, so both sides occur."""
    model = linear_gaussian(torch.zeros(2, 1).double(), rows=2, generic=generic)
    step_size = torch.tensor([5.0, 12.0]).double()
    result = sample(
        model.vae,
        model.x,
        init=torch.zeros(2, 1).double(),
        steps=40,
        warmup=0,
        leapfrog=1,
        jitter=0.0,
        step_size=step_size,
        adapt=None,
        seed=1,
    )
    number = torch.arange(40)
    p = normal(1, seed=1, index=torch.ones_like(number), step=number, use=Use.MOMENTUM)
    expected = int((p.square() * 12.0**4 / 8 > 1000).sum())
    assert 5 < expected < 35
    assert result.divergent.flatten().tolist() == [0, expected]
    assert (result.z[1] == 0).all()


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    "options", [{}, {"mass": "posterior"}, {"schedule": "kuzina2022", "group": 3}]
)
def test_a_bad_row_fails_alone(mlp_vae, generic, bad, options):
    vae, x = mlp_vae(generic=generic), images(3)
    options = {**SHORT, "keep": 3, **options}
    if "schedule" in options:
        del options["warmup"]
    poisoned = x.clone()
    poisoned[1, 2] = bad
    result = sample(vae, poisoned, **options)
    assert result.failed.tolist() == [False, True, False]
    for field in ("z", "accept_rate", "step_size", "energy"):
        assert getattr(result, field)[1].isnan().all()
        assert getattr(result, field)[[0, 2]].isfinite().all()
    assert (result.divergent[1] == 0).all()
    if "group" not in options:
        clean = sample(vae, x, **options)
        torch.testing.assert_close(result.z[[0, 2]], clean.z[[0, 2]], **CLOSE)


def test_a_prior_that_checks_its_argument_never_sees_nan(mlp_vae):
    """torch.distributions raises on NaN: one bad row or divergent step must not stop the others."""
    normal = torch.distributions.Normal(torch.zeros(2).double(), 1.0, validate_args=True)
    vae = mlp_vae("gaussian", prior=torch.distributions.Independent(normal, 1))
    x = images(3)
    x[1] = torch.nan
    step_size = torch.tensor([0.05, 0.05, 1e200], dtype=torch.float64)
    result = sample(vae, x, steps=10, warmup=0, step_size=step_size, adapt=None)
    assert result.failed.tolist() == [False, True, False]
    assert result.divergent.tolist() == [[0], [0], [10]]


def test_a_bad_start_fails_its_row(mlp_vae):
    init = torch.zeros(2, 2, 2).double()
    init[1, 0, 0] = torch.nan
    result = sample(mlp_vae(), images(2), init=init, **SHORT)
    assert result.failed.tolist() == [False, True]


def test_published_schedule_against_a_plain_loop(mlp_vae):
    """The defence as its authors wrote it, on the same random numbers."""
    vae, x, T, L, group = mlp_vae(), images(4), 11, 20, 2
    result = sample(
        vae, x, schedule="kuzina2022", group=group, steps=T, step_size=0.3, chains=3, seed=12
    )
    index, lane = torch.arange(4).repeat_interleave(3), torch.arange(3).repeat(4)
    pixels = x.repeat_interleave(3, 0)

    def energy(z):
        p = torch.sigmoid(vae.decode(z)).clamp(1e-5, 1 - 1e-5)
        log_likelihood = (pixels * p.log() + (1 - pixels) * (1 - p).log()).sum(1)
        return -log_likelihood + 0.5 * z.square().sum(1)

    def gradient(z):
        z = z.detach().requires_grad_()
        return torch.autograd.grad(energy(z).sum(), z)[0]

    def philox(count, use, t, draw):
        return draw(count, seed=12, index=index, step=t, lane=lane, use=use)

    mean, std = (values.detach() for values in vae.posterior(pixels))
    z = mean + std * philox(2, Use.INITIAL, 0, normal)
    eta, accepted = torch.full((2,), 0.3, dtype=torch.float64), torch.zeros(12)
    for t in range(T // 2 + T):
        p = philox(2, Use.MOMENTUM, t, normal)
        step = eta.repeat_interleave(6)[:, None]
        end, q = z, p - step / 2 * gradient(z)
        for leap in range(L):
            end = end + step * q
            q = q - step * gradient(end) * (0.5 if leap == L - 1 else 1.0)
        log_ratio = energy(z) - energy(end) + 0.5 * (p.square() - q.square()).sum(1)
        accept = philox(1, Use.ACCEPT, t, uniform)[:, 0].log() < log_ratio
        z = torch.where(accept[:, None], end, z).detach()
        eta = eta * (1 + 0.01 * (accept.double().view(2, 6).mean(1) - 0.9) / 0.9)
        accepted += accept * (t >= T // 2)
    assert result.z.shape == (4, 3, 1, 2)
    torch.testing.assert_close(result.z.view(12, 2), z, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(result.step_size, eta.repeat_interleave(2), rtol=1e-9, atol=0)
    torch.testing.assert_close(result.accept_rate, (accepted / T).view(4, 3).double())


def test_published_schedule_keeps_a_gaussian_as_it_is(mlp_vae):
    vae, x = mlp_vae("gaussian"), images(2)
    assert sample(vae, x, schedule="kuzina2022", steps=4).failed.sum() == 0


def test_the_callers_model_is_left_alone(mlp_vae):
    for generic in (False, True):
        vae = mlp_vae(generic=generic).train()
        state = {name: value.clone() for name, value in vae.state_dict().items()}
        sample(vae, images(2).requires_grad_(), **SHORT)
        assert vae.training
        assert all(parameter.requires_grad for parameter in vae.decoder.parameters())
        assert all(parameter.grad is None for parameter in vae.parameters())
        assert all(torch.equal(state[name], value) for name, value in vae.state_dict().items())


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_works_under_every_grad_mode(mlp_vae, generic, guard):
    vae, x = mlp_vae(generic=generic), images(2)
    plain = sample(vae, x, **SHORT)
    with guard():
        inside = sample(vae, x.clone(), **SHORT)
    torch.testing.assert_close(inside.z, plain.z, rtol=0, atol=0)
    assert not inside.z.requires_grad
    assert not inside.z.is_inference()


@pytest.mark.parametrize("layer", [nn.Dropout(), nn.BatchNorm1d(6)])
def test_a_module_in_training_mode_is_refused(mlp_vae, layer):
    vae = mlp_vae()
    vae.decoder.append(layer)
    with pytest.raises(RuntimeError, match=r"eval\(\)"):
        sample(vae.train(), images(2), **SHORT)


@pytest.mark.parametrize("generic", [False, True])
def test_float32_and_images(mlp_vae, generic):
    vae = mlp_vae(generic=generic, dtype=torch.float32)
    x = images(3, dtype=torch.float32).view(3, 1, 2, 3)
    options = {**SHORT, "adapt": None}
    result = sample(vae, x, **options)
    assert result.z.shape == (3, 2, 20, 2)
    assert result.z.dtype == result.step_size.dtype == result.accept_rate.dtype == torch.float32
    assert result.energy.dtype == torch.float64
    assert result.divergent.dtype == torch.int64
    assert result.reproducible == "round-off"
    double = sample(mlp_vae(generic=generic), x.double(), **options)
    torch.testing.assert_close(
        result.z[:, :, :3].double(), double.z[:, :, :3], rtol=0.01, atol=0.01
    )


def test_half_precision_models_keep_a_float32_state(mlp_vae):
    result = sample(mlp_vae(dtype=torch.bfloat16), images(2, dtype=torch.bfloat16), **SHORT)
    assert result.z.dtype == torch.float32
    assert not result.failed.any()
    assert result.accept_rate.mean() > 0.3


@pytest.mark.parametrize("generic", [False, True])
def test_no_rows(mlp_vae, generic):
    result = sample(mlp_vae(generic=generic), images(0), **SHORT)
    assert result.z.shape == (0, 2, 20, 2)
    assert result.energy.shape == (0, 2, 20)


def test_progress_bar(mlp_vae, capsys):
    for generic in (False, True):
        sample(mlp_vae(generic=generic), images(2), progress=True, **SHORT)
        assert "28/28" in capsys.readouterr().err


def test_interruption_leaves_the_sampler_usable(mlp_vae, opaque):
    vae = mlp_vae(generic=True)
    plain = sample(vae, images(2), **SHORT)
    forward = vae.decoder.forward

    def interrupt(z):
        if vae.decoder.calls > 300:
            raise KeyboardInterrupt
        return forward(z)

    vae.decoder.calls, vae.decoder.forward = 0, interrupt
    with pytest.raises(KeyboardInterrupt):
        sample(vae, images(2), **{**SHORT, "steps": 1000})
    del vae.decoder.forward
    assert torch.is_grad_enabled()
    torch.testing.assert_close(sample(vae, images(2), **SHORT).z, plain.z, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"chains": 0}, ValueError, "chains must be at least 1"),
        ({"chains": 5000}, ValueError, "chains must be at most 4096"),
        ({"steps": 0}, ValueError, "steps"),
        ({"steps": 2.5}, TypeError, "steps must be a whole number"),
        ({"warmup": -1}, ValueError, "warmup"),
        ({"leapfrog": 0}, ValueError, "leapfrog"),
        ({"step_size": 0.0}, ValueError, "step_size must be positive"),
        ({"step_size": torch.tensor([0.1, -1.0])}, ValueError, "step_size must be positive"),
        ({"step_size": float("inf")}, ValueError, "step_size must be positive and finite"),
        ({"step_size": torch.ones(3)}, ValueError, r"step_size must be a float or \[B\]"),
        ({"adapt": "nuts"}, ValueError, "adapt must be one of 'dual_averaging', None"),
        ({"jitter": 1.0}, ValueError, r"jitter must lie in \[0, 1\)"),
        ({"jitter": -0.1}, ValueError, "jitter"),
        ({"mass": "fisher"}, ValueError, "mass must be one of 'posterior'"),
        ({"mass": torch.ones(3)}, ValueError, r"\[d\] = \[2\] or \[B, d\] = \[2, 2\]"),
        ({"mass": torch.tensor([1.0, 0.0])}, ValueError, "mass must be positive"),
        ({"mass": 2.0}, TypeError, "mass must be a torch.Tensor"),
        ({"schedule": "nuts"}, ValueError, "schedule must be one of"),
        ({"schedule": "kuzina2022", "warmup": 5}, ValueError, "fixes warmup"),
        ({"schedule": "kuzina2022", "jitter": 0.1}, ValueError, "jitter=0.1; leave it out"),
        ({"schedule": "kuzina2022", "mass": "posterior"}, ValueError, "mass='posterior'"),
        ({"schedule": "kuzina2022", "group": 3}, ValueError, "group=3 cuts a group"),
        (
            {"schedule": "kuzina2022", "group": 2, "step_size": torch.tensor([0.1, 0.2])},
            ValueError,
            "one step_size per group",
        ),
        ({"group": 2}, ValueError, "group needs schedule="),
        ({"keep": "first"}, ValueError, "keep must be one of 'all', 'last'"),
        ({"keep": 0}, ValueError, "keep"),
        ({"keep": 11}, ValueError, "keep must be at most steps = 10, got 11"),
        ({"precision": "fp8"}, ValueError, "precision must be one of"),
        ({"seed": 0.5}, TypeError, "seed"),
        ({"index": torch.tensor([0, -1])}, ValueError, "index"),
        ({"index": torch.tensor([0.0, 1.0])}, TypeError, "index must be int64"),
        ({"init": torch.zeros(2, 3)}, ValueError, r"init must be \[B, d\] = \[2, 2\] or"),
        ({"init": torch.zeros(2, 4, 2)}, ValueError, r"\[B, C, d\] = \[2, 1, 2\]"),
        ({"init": [0.0]}, TypeError, "init must be a torch.Tensor"),
        ({"backend": "cuda"}, ValueError, "backend must be one of"),
    ],
)
def test_errors_name_the_argument_and_the_way_out(mlp_vae, options, error, message):
    with pytest.raises(error, match=message) as caught:
        sample(mlp_vae(), images(2), **{"steps": 10, **options})
    assert "\n" not in str(caught.value)


def test_errors_of_the_model_and_the_input(mlp_vae):
    with pytest.raises(TypeError, match=r"vae must be a vaefast.VAE.*as_vae"):
        sample(nn.Linear(2, 2), images(2))
    with pytest.raises(ValueError, match=r"x must be \[B, \*event\]"):
        sample(mlp_vae(), images(2)[0])
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor"):
        sample(mlp_vae(), images(2).numpy())
    with pytest.raises(TypeError, match="float64 like the model"):
        sample(mlp_vae(), images(2).float())
    with pytest.raises(ValueError, match="needs an MLP decoder"):
        sample(mlp_vae(generic=True), images(2), precision="bf16")
    vae = mlp_vae(generic=True)
    vae.decoder.module = Detached()
    with pytest.raises(RuntimeError, match="no gradient to z"):
        sample(vae, images(2))


class Detached(nn.Module):
    def forward(self, z):
        return z.detach().repeat(1, 3)

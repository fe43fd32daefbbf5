"""Training: it lowers the loss, repeats itself, and leaves everything but the weights alone."""

import math

import pytest
import torch
from dropping import Dropping
from torch import nn

from vaefast import data
from vaefast.models import MLPVAE, VAE, ConvVAE, as_vae
from vaefast.training import evaluate_elbo, fit, objectives


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture
def x():
    return torch.rand(40, 6, generator=torch.Generator().manual_seed(0))


def small(**options):
    return MLPVAE((6,), (8,), 2, **options)


def weights(vae):
    return [p.detach().clone() for p in vae.parameters()]


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a, b))


@pytest.mark.parametrize(
    "vae",
    [
        MLPVAE((1, 8, 8), (128,), 8),
        ConvVAE((1, 8, 8), 8, 8),
        MLPVAE((1, 8, 8), (64,), 4, "relu", "gaussian", 0.3),
    ],
    ids=["mlp", "conv", "gaussian"],
)
def test_training_raises_the_bound_on_digits_it_has_not_seen(vae, digits):
    before = evaluate_elbo(vae, digits.x_test).elbo.mean()
    history = fit(vae, digits.x_train, epochs=6, lr=2e-3, progress=False)
    after = evaluate_elbo(vae, digits.x_test).elbo.mean()
    assert after > before + 5.0
    assert history.loss[-1] < history.loss[0] - 5.0
    assert -after.item() == pytest.approx(history.validation[-1], rel=0.1)
    assert len(history.loss) == len(history.validation) == len(history.lr) == 6


def test_the_same_seed_gives_the_same_weights(x):
    runs = {}
    for caller, (name, seed) in enumerate([("one", 1), ("again", 1), ("other", 2)]):
        torch.manual_seed(caller)  # what the caller did before does not matter
        vae = small()
        history = fit(vae, x, epochs=2, batch_size=16, seed=seed)
        runs[name] = (weights(vae), history)
    assert same(runs["one"][0], runs["again"][0])
    assert runs["one"][1] == runs["again"][1]
    assert not same(runs["one"][0], runs["other"][0])


def test_modules_with_randomness_of_their_own_repeat_too(x):
    state = torch.get_rng_state()
    runs = []
    for _ in range(2):
        torch.set_rng_state(state)
        module = Dropping()
        fit(as_vae(module), x, epochs=2, batch_size=13, seed=4)  # 36 rows: 12, 12, 12
        runs.append(weights(module))
    assert same(*runs)


def test_everything_but_the_weights_is_as_before(x):
    module = Dropping().train()
    vae = as_vae(module)
    modes = {name: layer.training for name, layer in vae.named_modules()}
    frozen, state = weights(module.frozen), torch.get_rng_state()
    kept = x.clone()
    with torch.no_grad():
        fit(vae, x, epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: layer.training for name, layer in vae.named_modules()} == modes
    assert all(p.grad is None for p in vae.parameters())
    assert same(weights(module.frozen), frozen)
    assert torch.equal(x, kept)


def test_the_first_step_is_adam_on_the_bound_computed_by_hand(x):
    """One row-batch, one step: Adam's first step is lr·sign(gradient)."""
    vae, twin = small().double(), small().double()
    rows = x.double()
    history = fit(vae, rows, epochs=1, batch_size=40, validation=0.0, lr=1e-3, seed=9)
    generator = torch.Generator().manual_seed(9)
    split = torch.randperm(40, generator=torch.Generator().manual_seed(9))
    order = split[torch.randperm(40, generator=generator)]
    mean, std = twin.posterior(rows[order])
    eta = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    logits = twin.decode(mean + std * eta)
    misfit = nn.functional.binary_cross_entropy_with_logits(logits, rows[order], reduction="sum")
    kl = 0.5 * (mean**2 + std**2 - 1 - 2 * std.log()).sum()
    loss = (misfit + kl) / 40
    gradients = torch.autograd.grad(loss, list(twin.parameters()))
    assert history.loss == [pytest.approx(loss.item(), rel=1e-9)]
    assert history.validation == []
    for after, before, gradient in zip(vae.parameters(), twin.parameters(), gradients):
        expected = before - 1e-3 * gradient / (gradient.abs() + 1e-8)
        assert torch.allclose(after, expected, atol=1e-9)


def test_a_larger_beta_buys_a_smaller_kl(digits):
    kl = []
    for beta in (0.1, 5.0):
        vae = MLPVAE((1, 8, 8), (64,), 4)
        fit(vae, digits.x_train, objective="beta", beta=beta, epochs=6, lr=2e-3)
        kl.append(evaluate_elbo(vae, digits.x_test).kl.mean())
    assert kl[1] < 0.5 * kl[0]


def test_beta_one_is_the_elbo(x):
    one, two = small(), small()
    fit(one, x, epochs=1)
    fit(two, x, objective="beta", epochs=1)
    assert same(weights(one), weights(two))


def test_the_rate_is_halved_when_the_validation_loss_stops_falling(x):
    history = fit(small(), x, epochs=6, lr=1e-6, patience_lr=1)
    assert history.lr[0] == 1e-6
    assert min(history.lr) < 1e-6
    assert all(later in (rate, rate / 2) for rate, later in zip(history.lr, history.lr[1:]))


def test_ctrl_c_leaves_a_usable_model(x, monkeypatch):
    vae = small().eval()
    start = weights(vae)
    steps = []

    def interrupt(*args):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return terms(*args)

    terms = objectives.elbo_terms
    monkeypatch.setattr(objectives, "elbo_terms", interrupt)
    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        fit(vae, x, epochs=5, batch_size=8)
    assert not same(weights(vae), start)
    assert not vae.training
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.isfinite(vae.reconstruct(x)).all()


def test_a_loss_that_is_not_finite_stops_before_it_spoils_the_weights(x):
    vae = small()
    with torch.no_grad():
        vae.encoder.logvar.bias.fill_(1e4)
    start = weights(vae)
    with pytest.raises(ValueError, match=r"the loss became (nan|inf); train with lr below 0.0005"):
        fit(vae, x, epochs=1)
    assert same(weights(vae), start)


def test_no_bar_where_no_terminal_looks_on(x, capsys):
    fit(small(), x, epochs=1, progress=True)
    assert capsys.readouterr() == ("", "")


def test_training_without_tqdm(x, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    assert len(fit(small(), x, epochs=2).loss) == 2


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_handful_of_rows_is_enough(rows, x):
    history = fit(small(), x[:rows], epochs=2)
    assert len(history.validation) == (0 if rows == 1 else 2)


def bad(value, rows=40):
    x = torch.full((rows, 6), 0.5)
    x[3, 2] = value
    return x


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"objective": "vae"}, ValueError, "objective must be one of 'elbo', 'beta', 'tcvae'"),
        ({"beta": 2.0}, ValueError, 'beta must be 1 with objective "elbo", got 2; say "beta"'),
        ({"objective": "beta", "beta": -1.0}, ValueError, "beta must be at least 0"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"batch_size": 2.5}, TypeError, "batch_size must be a whole number"),
        ({"lr": 0.0}, ValueError, "lr must be positive"),
        ({"validation": 1.0}, ValueError, r"validation must be in \[0, 1\), got 1"),
        ({"patience_lr": -1}, ValueError, "patience_lr must be at least 0"),
        ({"seed": 1.5}, TypeError, "seed must be a whole number, got float"),
        ({"x": bad(math.nan)}, ValueError, "x must be finite"),
        ({"x": bad(math.inf)}, ValueError, "x must be finite"),
        ({"x": bad(255.0)}, ValueError, r"x must be in \[0, 1\] .* from 0.5 to 255; pass x / 255"),
        ({"x": torch.rand(40, 7)}, ValueError, r"x must be \[B, 6\] for this model, got"),
        ({"x": torch.rand(0, 6)}, ValueError, "at least one input"),
        ({"x": torch.rand(6)}, ValueError, r"x must be \[B, \*event\]"),
        ({"x": torch.ones(40, 6).byte()}, TypeError, r"pass x\.float\(\) / 255"),
        ({"x": [1.0]}, TypeError, r"x must be a torch\.Tensor"),
        ({"x": torch.rand(40, 6).double()}, TypeError, "x must be float32 like the model"),
        ({"vae": nn.Linear(6, 6)}, TypeError, "wrap it with vaefast.as_vae"),
        ({"vae": small().requires_grad_(False)}, ValueError, "none to train"),
        ({"vae": small().half()}, TypeError, "must be float32 or float64 to train, got float16"),
    ],
)
def test_arguments_are_checked(change, error, words, x):
    arguments = {"vae": small(), "x": x, "epochs": 1, **change}
    with pytest.raises(error, match=words):
        fit(arguments.pop("vae"), arguments.pop("x"), **arguments)


def test_inputs_of_a_gaussian_may_leave_the_unit_interval(x):
    fit(small(likelihood="gaussian"), 10 * x - 5, epochs=1)


def test_probabilities_are_trained_through_their_logits(digits):
    torch.manual_seed(0)
    vae = VAE(
        encoder_mean=nn.Sequential(nn.Flatten(), nn.Linear(64, 4)),
        encoder_logvar=torch.full((4,), -2.0),
        decoder=nn.Sequential(nn.Linear(4, 64), nn.Sigmoid()),
        decoder_output="probabilities",
    )
    history = fit(vae, digits.x_train, epochs=3, lr=1e-2)
    assert history.loss[-1] < history.loss[0] - 3.0


class Shifted(nn.Module):
    """The class of an input is all there is to learn: x is one of two points."""

    def __init__(self):
        super().__init__()
        self.heads, self.out = nn.Linear(8, 4), nn.Linear(4, 6)

    def encode(self, x, y):
        return self.heads(torch.cat([x, y], dim=1)).chunk(2, dim=1)

    def decode(self, z, y):
        return self.out(torch.cat([z, y], dim=1))


@pytest.mark.parametrize("named", [False, True])
def test_a_conditional_vae_is_trained_with_the_context_of_its_rows(named):
    torch.manual_seed(0)
    vae = as_vae(Shifted(), likelihood="gaussian", obs_std=0.1)
    label = torch.arange(60) % 2
    x = torch.stack([torch.zeros(6), torch.ones(6)])[label]
    y = nn.functional.one_hot(label, 2).float()
    options = {"epochs": 60, "batch_size": 10, "lr": 0.03, "progress": False}
    history = fit(vae, x, context={"y": y} if named else y, **options)
    assert len(history.validation) == 60
    with torch.no_grad():
        prior_mean = vae.decode(torch.zeros(60, 2), context=y)
    assert (prior_mean - x).abs().max() < 0.2  # z = 0 for both: only y tells them apart


def test_the_context_of_another_number_of_rows_is_refused(x):
    vae = as_vae(Shifted(), likelihood="gaussian")
    with pytest.raises(ValueError, match=r"context must be \[40, ...\]"):
        fit(vae, x, context=torch.ones(39, 2), epochs=1, progress=False)
    with pytest.raises(TypeError, match=r"Shifted.encode takes conditions beside x"):
        fit(vae, x, epochs=1, progress=False)

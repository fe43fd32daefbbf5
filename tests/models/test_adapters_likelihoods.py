"""What a decoder's output means: standard deviations, two heads, pixels, and first doubts."""

import warnings

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

import vaefast as vf
from vaefast.elbo import evaluate_elbo
from vaefast.metrics import likelihood_degradation
from vaefast.models import MLPVAE, VAE, as_vae, explain, save
from vaefast.models.likelihoods import check_pixels

D, d = 6, 2


class Model(nn.Module):
    def __init__(self, decode=lambda m, z: m.out(z), scale=lambda v: v):
        super().__init__()
        torch.manual_seed(0)
        self.heads, self.out = nn.Linear(D, 2 * d), nn.Linear(d, D)
        self.second, self.of, self.scale = nn.Linear(d, D), decode, scale

    def encode(self, x):
        mean, scale = self.heads(x).chunk(2, dim=1)
        return mean, self.scale(scale)

    def decode(self, z):
        return self.of(self, z)


@pytest.fixture
def x():
    return torch.rand(4, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def log_normal(mean, std, x):
    return Independent(Normal(mean, std), 1).log_prob(x)


@pytest.mark.parametrize(
    "std", [0.3, torch.tensor(0.3), torch.full((D,), 0.3), torch.linspace(0.1, 2, D)]
)
def test_obs_std_is_a_number_or_one_for_every_pixel(std, x):
    vae = as_vae(Model().double(), likelihood="gaussian", obs_std=std)
    z = vae.encode(x)[0]
    expected = log_normal(vae.decode(z), torch.as_tensor(std).double().expand(D), x)
    assert torch.allclose(vae.log_likelihood(x, z), expected, rtol=1e-5)


def test_obs_std_like_an_event_and_chains_of_an_input():
    std = torch.rand(2, 3) + 0.1
    vae = VAE(
        encoder_mean=nn.Sequential(nn.Flatten(), nn.Linear(D, d)),
        encoder_logvar=torch.zeros(d),
        decoder=nn.Sequential(nn.Linear(d, D), nn.Unflatten(1, (2, 3))),
        likelihood="gaussian",
        obs_std=std,
    )
    assert "_obs_std" not in vae.state_dict()
    x, z = torch.rand(3, 2, 3), torch.randn(6, d)
    expected = log_normal(
        vae.decode(z).flatten(1), std.flatten(), x.flatten(1).repeat(1, 2).view(6, D)
    )
    assert torch.allclose(vae.log_likelihood(x, z), expected.double(), rtol=1e-5)


@pytest.mark.parametrize(
    ("std", "error", "words"),
    [
        (torch.zeros(D), ValueError, "obs_std must be positive and finite in every entry"),
        (torch.ones(D).int(), TypeError, "obs_std must be a floating tensor, got int32"),
        (torch.tensor(-1.0), ValueError, "obs_std must be positive and finite, got -1"),
    ],
)
def test_obs_std_is_checked(std, error, words):
    with pytest.raises(error, match=words):
        as_vae(Model(), likelihood="gaussian", obs_std=std)


def test_a_model_with_a_tensor_is_not_saved(tmp_path):
    vae = MLPVAE((D,), (4,), d, likelihood="gaussian", obs_std=torch.ones(D))
    with pytest.raises(TypeError, match="obs_std is a number, got a tensor"):
        save(vae, tmp_path / "m")


PAIRS = {
    "tuple": lambda m, z: (m.out(z), m.second(z)),
    "names": lambda m, z: {"mean": m.out(z), "logvar": m.second(z)},
    "normal": lambda m, z: Normal(m.out(z), (m.second(z) / 2).exp()),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("output", [None, "mean_logvar"])
def test_a_second_head_is_the_log_variance_of_the_gaussian(pair, output, x):
    model = Model(PAIRS[pair]).double()
    vae = as_vae(model, likelihood="gaussian", decoder_output=output)
    z = torch.randn(4, d, dtype=torch.float64, requires_grad=True)
    assert torch.equal(vae.decode(z), model.out(z))
    assert torch.equal(vae.g(z), model.out(z))
    expected = log_normal(model.out(z), (model.second(z) / 2).exp(), x)
    value = vae.log_likelihood(x, z)
    assert torch.allclose(value, expected)
    gradients = (torch.autograd.grad(v.sum(), z)[0] for v in (value, expected))
    assert torch.allclose(*gradients)
    assert "std from the decoder" in explain(vae, x).likelihood
    with pytest.raises(RuntimeError, match=r"obs_std depends on z .* vae.likelihood_at\(z\)"):
        vae.obs_std  # noqa: B018 - nothing may take 1 for it


def test_the_elbo_of_a_second_head(x):
    model = Model(PAIRS["tuple"]).double()
    vae = as_vae(model, likelihood="gaussian")
    elbo = evaluate_elbo(vae, x, samples=200)
    mean, std = vae.posterior(x)
    z = mean + std * torch.randn(4000, 1, d, dtype=torch.float64)
    rows = z.flatten(0, 1)
    expected = log_normal(model.out(rows), (model.second(rows) / 2).exp(), x.repeat(4000, 1))
    assert torch.allclose(elbo.reconstruction, expected.view(4000, 4).mean(0), rtol=0.05)


def test_chains_see_the_second_head(x):
    vae = as_vae(Model(PAIRS["tuple"]).double(), likelihood="gaussian")
    result = vf.hmc.sample(vae, x, steps=3, warmup=3, chains=2)
    z = result.z.transpose(1, 2).reshape(-1, d)  # of an input's 3 transitions, 2 chains each
    log_joint = vae.log_likelihood(x, z) + vae.log_prior(z)
    assert torch.allclose(result.energy.transpose(1, 2).flatten(), -log_joint)


def test_a_constant_log_variance_is_a_second_head_too(x):
    model = Model(lambda m, z: (m.out(z), torch.tensor(-1.0, dtype=z.dtype))).double()
    vae = as_vae(model, likelihood="gaussian")
    z = vae.encode(x)[0]
    std = torch.full((D,), -0.5, dtype=torch.float64).exp()
    assert torch.allclose(vae.log_likelihood(x, z), log_normal(model.out(z), std, x))


@pytest.mark.parametrize(
    "options",
    [
        {"likelihood": "gaussian", "obs_std": 0.5},
        {"likelihood": "gaussian", "decoder_output": "mean"},
        {"likelihood": "bernoulli"},
    ],
)
def test_a_second_tensor_is_left_out_where_it_is_no_head(options, x):
    model = Model(PAIRS["tuple"]).double()
    vae = as_vae(model, **options)
    z = vae.encode(x)[0]
    assert torch.equal(vae.decode(z), model.out(z))
    assert vae.likelihood_at(z).params == vae.likelihood_params


def test_two_heads_that_are_promised_must_come(x):
    vae = as_vae(Model().double(), likelihood="gaussian", decoder_output="mean_logvar")
    with pytest.raises(TypeError, match=r'\(mean, logvar\) with decoder_output "mean_logvar"'):
        vae.decode(vae.encode(x)[0])
    with pytest.raises(ValueError, match='obs_std must not be given with decoder_output "mean_'):
        as_vae(Model(), likelihood="gaussian", decoder_output="mean_logvar", obs_std=1.0)


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli", "clamped_bernoulli"])
@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (lambda x: 2 * x - 1, r"pass \(x \+ 1\) / 2"),
        (lambda x: 255 * x, "pass x / 255"),
        (lambda x: 9 * x - 4, r'rescale it to \[0, 1\], or use likelihood="gaussian"'),
    ],
)
def test_pixels_outside_of_the_unit_interval_are_refused(likelihood, change, remedy, x):
    vae = as_vae(Model().double(), likelihood=likelihood)
    z = vae.encode(x)[0]
    assert torch.isfinite(vae.log_likelihood(x, z)).all()
    with pytest.raises(ValueError, match=rf"x must be in \[0, 1\] with .*{remedy}"):
        vae.log_likelihood(change(x), z)
    check_pixels(change(x), "gaussian")


def test_bytes_are_told_their_range_and_nan_passes(x):
    vae = as_vae(Model().double())
    with pytest.raises(TypeError, match=r"x must be floating, got uint8; pass x.float\(\) / 255"):
        vae.encode((255 * x).byte())
    x[1, 2], x[2, 3] = torch.nan, torch.inf
    check_pixels(x, "bernoulli")


def test_logits_that_are_probabilities_are_warned_of_once(x):
    vae = as_vae(Model(lambda m, z: torch.sigmoid(m.out(z))).double())
    with pytest.warns(UserWarning, match='pass decoder_output="probabilities"'):
        evaluate_elbo(vae, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_elbo(vae, x)


def test_a_log_variance_that_is_a_scale_is_warned_of(x):
    vae = as_vae(Model(scale=torch.exp).double())
    with pytest.warns(UserWarning, match='pass encoder_output="std" or "var"'):
        vae.check_first_batch(x)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (Model(), {}),
        (Model(scale=lambda v: 0 * v), {}),  # a collapsed posterior
        (Model(scale=lambda v: 5e-4 * v.abs()), {}),
        (Model(scale=torch.exp), {"encoder_output": "std"}),
        (Model(scale=torch.exp), {"encoder_output": "logvar"}),  # insists
        (Model(lambda m, z: torch.sigmoid(m.out(z))), {"decoder_output": "probabilities"}),
        (Model(lambda m, z: torch.sigmoid(m.out(z))), {"decoder_output": "logits"}),
        (Model(lambda m, z: torch.sigmoid(m.out(z))), {"likelihood": "gaussian"}),
    ],
)
def test_what_is_legal_or_was_said_is_not_warned_of(model, options, x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_vae(model.double(), **options).check_first_batch(x)


@pytest.mark.parametrize("scale", [255, -1])
def test_public_functions_that_evaluate_it_refuse_them_too(scale, x):
    vae = as_vae(Model().double())
    with pytest.raises(ValueError, match=r"x must be in \[0, 1\] with likelihood 'bernoulli'"):
        evaluate_elbo(vae, scale * x)
    with pytest.raises(ValueError, match=r"x must be in \[0, 1\] with likelihood 'bernoulli'"):
        likelihood_degradation(vae, scale * x, x)

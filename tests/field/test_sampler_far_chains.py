"""One chain that went far away killed the call for all of them.

A prior or decoder that builds a ``torch.distributions`` object from z raises where that argument is
0, infinite or outside of the support; so does a model with checks of its own. Such a proposal is
rejected, alone, and the process's own setting of the checks stays what it was.
"""

import threading

import pytest
import torch
from torch import nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from vaefast.hmc import defend, sample, tune
from vaefast.models import VAE
from vaefast.runtime.distributions import unchecked

D = 6


@pytest.fixture(autouse=True)
def checks_are_on():
    """Also after torch.compile, which switches them off for the process."""
    before = vars(Distribution)["_validate_args"]
    Distribution.set_default_validate_args(True)
    yield
    Distribution.set_default_validate_args(before)


def hierarchical(validate):
    """p(z₁) p(z₂|z₁), whose scale overflows far away."""
    head = nn.Linear(2, 4)
    head.weight.data.mul_(3.0)

    def log_prob(z):
        mean, log_scale = head(z[:, :2]).chunk(2, 1)
        first = Normal(0.0, 1.0, validate_args=validate).log_prob(z[:, :2])
        second = Normal(mean, log_scale.exp(), validate_args=validate).log_prob(z[:, 2:])
        return first.sum(1) + second.sum(1)

    return log_prob


def correlated(z):
    """A covariance made from z, whose Cholesky factor fails far away."""
    factor = torch.eye(2) + 0.1 * z[:, 2:, None] * z[:, None, 2:]
    factor = torch.linalg.cholesky(factor - (z[:, :1, None] > 20) * 5.0 * torch.eye(2))
    return MultivariateNormal(torch.zeros(2), scale_tril=factor).log_prob(z[:, :2]) - (
        0.5 * z[:, 2:].square().sum(1)
    )


class Checking(nn.Module):
    """A decoder that refuses what it does not like, as people's code does."""

    def __init__(self, error=ValueError):
        super().__init__()
        self.linear = nn.Linear(4, D)
        self.error = error

    def forward(self, z):
        if bool((z.abs() > 20).any()):
            raise self.error("latents out of range")
        return self.linear(z)


def checked_normal(z):
    assert z.abs().max() < 20, "latents out of range"
    return -0.5 * z.square().sum(1)


class Scaled(nn.Module):
    """A decoder that goes through a distribution's mean."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, D)

    def forward(self, z):
        return Normal(self.linear(z), (-z.square().sum(1, keepdim=True)).exp()).mean


def model(prior=None, decoder=None):
    torch.manual_seed(0)
    return VAE(
        encoder_mean=nn.Linear(D, 4),
        encoder_logvar=torch.full((4,), -2.0),
        decoder=decoder or nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, D)),
        prior=prior,
    ).eval()


MODELS = {
    "hierarchical prior, default checks": lambda: model(hierarchical(None)),
    "hierarchical prior, checks asked for": lambda: model(hierarchical(True)),
    "covariance made from z": lambda: model(correlated),
    "decoder with a distribution": lambda: model(decoder=Scaled()),
    "decoder with a check": lambda: model(decoder=Checking()),
    "decoder with an assertion": lambda: model(decoder=Checking(AssertionError)),
    "prior with a check": lambda: model(checked_normal),
}
FAR = {"steps": 12, "warmup": 0, "adapt": None, "jitter": 0.0, "leapfrog": 4, "seed": 1}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:hmc.sample. 1 of 3 inputs")
def test_a_far_chain_diverges_alone(name):
    """Row 1 takes steps with which no trajectory stays where the model works."""
    x = torch.rand(3, D, generator=torch.Generator().manual_seed(0))
    step_size = torch.tensor([0.05, 300.0, 0.05])
    vae = MODELS[name]()
    result = sample(vae, x, step_size=step_size, **FAR)
    assert not result.failed.any()
    assert (result.accept_rate[1] == 0).all()
    assert (result.divergent[1] == 12).all()
    assert "every proposal diverged" in result.reasons[1]
    others = sample(vae, x[[0, 2]], step_size=0.05, index=torch.tensor([0, 2]), **FAR)
    assert (others.accept_rate > 0.5).all()
    torch.testing.assert_close(result.z[[0, 2]], others.z, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:hmc")
def test_a_lone_chain_that_is_refused_goes_on():
    x = torch.rand(1, D, generator=torch.Generator().manual_seed(0))
    result = sample(model(decoder=Checking()), x, step_size=100.0, **FAR)
    assert (result.divergent == 12).all()


@pytest.mark.parametrize("call", [sample, defend, tune])
def test_an_error_at_the_start_is_the_callers(call):
    decoder = Checking()
    decoder.error = KeyError
    x = torch.rand(2, D, generator=torch.Generator().manual_seed(0))
    init = torch.full((2, 4), 50.0)
    with pytest.raises(KeyError, match="latents out of range"):
        call(model(decoder=decoder), x, init=init, steps=2, warmup=2)


def checks():
    return vars(Distribution)["_validate_args"], Distribution(validate_args=True)._validate_args


@pytest.mark.parametrize("default", [True, False])
def test_the_checks_are_what_they_were(default):
    before = vars(Distribution)["_validate_args"]
    x = torch.rand(2, D)
    try:
        Distribution.set_default_validate_args(default)
        sample(model(hierarchical(None)), x, steps=2, warmup=2)
        assert checks() == (default, True)
        with pytest.raises(RuntimeError, match="latents out of range"):
            sample(model(decoder=Checking(RuntimeError)), x, init=torch.full((2, 4), 50.0))
        assert checks() == (default, True)
    finally:
        Distribution.set_default_validate_args(before)


def test_other_threads_go_on_checking():
    inside, checked = threading.Event(), threading.Event()
    found = []

    def other():
        inside.wait(10)
        try:
            Normal(0.0, -1.0)
        except ValueError:
            found.append("raised")
        kept = Normal(0.0, 1.0, validate_args=False)
        found.append(kept._validate_args)
        checked.set()

    thread = threading.Thread(target=other)
    thread.start()
    with unchecked():
        inside.set()
        assert checked.wait(10)
        far = Independent(Normal(torch.zeros(2), torch.zeros(2), validate_args=True), 1)
        assert not far.log_prob(torch.ones(3, 2)).isfinite().any()
    thread.join()
    assert found == ["raised", False]
    assert far.base_dist._validate_args  # what its caller asked for is back
    with pytest.raises(ValueError, match="scale"):
        Normal(0.0, -1.0)


def test_a_default_set_meanwhile_is_kept():
    before = vars(Distribution)["_validate_args"]
    try:
        with unchecked(), unchecked():
            other = threading.Thread(target=Distribution.set_default_validate_args, args=(False,))
            other.start()
            other.join()
            Distribution.set_default_validate_args(True)  # in the thread that does not check
        assert vars(Distribution)["_validate_args"] is False
        Distribution.set_default_validate_args(True)
        assert vars(Distribution)["_validate_args"] is True
    finally:
        Distribution.set_default_validate_args(before)

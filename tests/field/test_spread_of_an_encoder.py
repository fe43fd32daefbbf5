"""An encoder that returned (mean, std) was read as (mean, log σ²): σ of 1.56 where 0.86 was true.

A pair says nothing about its second half, so what is never negative is said once, by whichever
function meets it first, and ``encoder_output=`` gives the right σ and no warning.
"""

import pytest
import torch
from field_models import warned
from torch import nn
from torch.nn import functional as F

import vaefast as vf

HMC = {"steps": 2, "warmup": 2, "leapfrog": 2}
CALLS = {
    "latent": lambda v, x: vf.attacks.latent(v, x, eps=0.1, steps=2),
    "margin": lambda v, x: vf.certify.margin(v, x, 3.0, samples=20),
    "sample": lambda v, x: vf.hmc.sample(v, x, **HMC),
    "frobenius_norm": vf.geometry.frobenius_norm,
    "evaluate_elbo": vf.training.evaluate_elbo,
}
X = torch.rand(4, 9, generator=torch.Generator().manual_seed(0))
SPREADS = {
    "std": lambda h: F.softplus(h),
    "var": lambda h: h.exp(),
    "logvar": lambda h: 2 * F.softplus(h).log(),
    "logstd": lambda h: F.softplus(h).log(),
}


class Model(nn.Module):
    def __init__(self, spread):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.mean, self.second, self.out = nn.Linear(9, 2), nn.Linear(9, 2), nn.Linear(2, 9)
        self.spread = spread

    def encode(self, x):
        return self.mean(x), self.spread(self.second(x))

    def decode(self, z):
        return self.out(z)

    def std(self, x):
        h = self.second(x)
        return (0.5 * h).exp() if self.spread is SPREADS["var"] else F.softplus(h)


def said(function):
    return warned(function, "never negative")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", ["std", "var"])
def test_what_is_never_negative_is_said_once(kind, name):
    vae = vf.as_vae(Model(SPREADS[kind]).eval())
    (line,) = said(lambda: CALLS[name](vae, X))
    assert 'pass encoder_output="std" or "var", else "logvar"' in line
    assert "\n" not in line
    assert not said(lambda: CALLS[name](vae, X))


@pytest.mark.parametrize("name", CALLS)
def test_an_ordinary_log_variance_says_nothing(name):
    assert not said(lambda: CALLS[name](vf.as_vae(Model(SPREADS["logvar"]).eval()), X))


@pytest.mark.parametrize("kind", SPREADS)
def test_what_is_said_gives_the_right_spread(kind):
    model = Model(SPREADS[kind]).eval()
    vae = vf.as_vae(model, encoder_output=kind)
    assert not said(lambda: vf.geometry.frobenius_norm(vae, X))
    mean, std = vae.posterior(X)
    torch.testing.assert_close(mean, model.mean(X))
    torch.testing.assert_close(std, model.std(X))

"""Elsewhere a relu encoder that is dead at x, or one that rounds, had a Jacobian of 0 and with it
a margin of infinity. Here a margin abstains where J = 0 and says why in each row, and a norm of 0
comes with one warning.
"""

import warnings

import pytest
import torch
from torch import nn

import vaefast as vf

METHODS = ("first_order", "whitened")
SAYS = "of which first order says nothing"


class Rounds(nn.Module):
    def forward(self, x):
        return (x * 255).round() / 255


class Constant(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x) * x


def build(first):
    torch.manual_seed(0)
    return vf.VAE(
        encoder_mean=nn.Sequential(first, nn.Linear(6, 3)),
        encoder_logvar=torch.zeros(3),
        decoder=nn.Linear(3, 6),
        likelihood="gaussian",
    ).eval()


def dead():
    """A relu whose units are off where x[0] < 0.5, on everywhere else."""
    layer = nn.Linear(6, 6)
    nn.init.constant_(layer.weight, 0.0)
    nn.init.constant_(layer.bias, -0.5)
    with torch.no_grad():
        layer.weight[:, 0] = 1.0
    return nn.Sequential(layer, nn.ReLU())


X = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
KINDS = {"rounds": Rounds(), "constant": Constant(), "dead relu": dead()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_margin_abstains_and_says_why(kind, method):
    x = X.clone()
    x[:, 0] = 0.2
    result = vf.certify.margin(build(KINDS[kind]), x, 20.0, method=method, samples=200)
    assert (result.p_lower > 0.5).all()
    assert result.abstain.all()
    assert not result.margin.any()
    assert all(SAYS in reason for reason in result.reasons)


@pytest.mark.parametrize("method", METHODS)
def test_only_the_rows_where_the_jacobian_is_0(method):
    x = X.clone()
    x[:, 0] = torch.tensor([0.2, 0.8, 0.2, 0.9])
    result = vf.certify.margin(build(KINDS["dead relu"]), x, 20.0, method=method, samples=200)
    assert result.abstain.tolist() == [True, False, True, False]
    assert [SAYS in reason for reason in result.reasons] == [True, False, True, False]
    assert result.reasons[1] == ""


def test_every_row_that_abstains_has_its_reason():
    class Wild(nn.Module):
        def encode(self, x):
            return x[:, :2], x[:, 2:4]

        def decode(self, z):
            return z.repeat(1, 3)

    x = torch.full((4, 6), 0.5)
    x[0, 0], x[1, 2], x[2, 3] = torch.nan, -4000.0, 8.0
    vae = vf.as_vae(Wild(), likelihood="gaussian")
    result = vf.certify.margin(vae, x, torch.tensor([30.0, 30.0, 1.0, 30.0]), samples=300)
    assert result.abstain.tolist() == [True, True, True, False]
    assert result.reasons == (
        "x or r is not finite",
        "the encoder's std is not positive and finite",
        "p_lower is at most 1/2",
        "",
    )


NORMS = {
    "spectral": lambda v, x: vf.geometry.spectral_norm(v, x),
    "spectral, lower": lambda v, x: vf.geometry.spectral_norm(v, x, bound="lower"),
    "frobenius": lambda v, x: vf.geometry.frobenius_norm(v, x),
    "hutchinson": lambda v, x: vf.geometry.frobenius_norm(v, x, method="hutchinson"),
    "reconstruction": lambda v, x: vf.geometry.frobenius_norm(v, x, of="reconstruction"),
    "spectrum": lambda v, x: vf.geometry.pullback_spectrum(v, x),
    "scores": lambda v, x: vf.geometry.robustness_scores(v, x),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_of_0_is_said_once(name):
    x = X.clone()
    x[:, 0] = torch.tensor([0.2, 0.8, 0.2, 0.9])
    vae = build(KINDS["dead relu"])
    with pytest.warns(UserWarning, match=r"is 0 in 2 of 4 inputs \(rows 0, 2\)") as caught:
        NORMS[name](vae, x)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NORMS[name](vae, x[1::2])

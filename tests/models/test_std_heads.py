"""Encoders that return a standard deviation: the network gives σ, the logarithm is outside."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vaefast as vf
from vaefast.elbo import evaluate_elbo
from vaefast.models import lowering

HEADS = {
    "softplus": lambda v: F.softplus(v) + 1e-4,
    "softplus alone": F.softplus,
    "sigmoid": lambda v: 0.01 + 0.9 * torch.sigmoid(v),
    "exponential and a floor": lambda v: v.exp() + 0.1,
    "clamped": lambda v: v.clamp(0.2, 1.3),
}


class Model(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.trunk, self.mean, self.scale = nn.Linear(12, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.up, self.head = nn.Linear(3, 12), head

    def encode(self, x):
        h = torch.tanh(self.trunk(x.flatten(1)))
        return self.mean(h), self.head(self.scale(h))

    def decode(self, z):
        return self.up(z).view(-1, 3, 4)


def wrapped(name, dtype=torch.float64, output="std"):
    torch.manual_seed(0)
    model = Model(HEADS[name]).to(dtype).eval()
    return vf.as_vae(model, encoder_output=output, decoder_output="logits")


@pytest.fixture
def x():
    return torch.rand(4, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", HEADS)
def test_the_encoder_is_fused_and_gives_what_the_module_gives(name, x):
    vae = wrapped(name)
    assert "fused" in str(vf.explain(vae, x).encoder_logvar)
    found = lowering.encoder(vae, x)
    assert found.logvar is None
    assert torch.allclose(vf.ops.net_forward(x.flatten(1), found.std), vae.posterior(x)[1])
    with pytest.raises(vf.CannotLower, match="logarithm"):
        lowering.encoder_logvar(vae, x)


CALLS = {
    "frobenius_norm": lambda vae, x: vf.geometry.frobenius_norm(vae, x, whiten=True),
    "spectrum": lambda vae, x: vf.geometry.pullback_spectrum(vae, x, std=True).eigenvalues,
    "margin": lambda vae, x: vf.certify.margin(vae, x, 1.0, samples=50).margin,
    "latent": lambda vae, x: vf.attacks.latent(vae, x, eps=0.1, steps=3).objective,
    "elbo": lambda vae, x: evaluate_elbo(vae, x, samples=4).elbo,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ["softplus", "exponential and a floor"])
def test_public_functions_agree_with_the_module(name, call, x, monkeypatch):
    vae = wrapped(name)
    fused = CALLS[call](vae, x)
    monkeypatch.setattr(
        lowering, "encoder", lambda *_: lowering.Encoder(None, None, "as the module")
    )
    monkeypatch.setattr(lowering, "known_encoder", lambda *_: None)
    assert torch.allclose(fused, CALLS[call](vae, x), rtol=1e-9)


def test_a_changed_head_is_seen(x):
    vae = wrapped("softplus")
    before = vf.certify.margin(vae, x, 1.0, samples=50).margin
    vae.encoder.module.head = lambda v: F.softplus(v) + 0.2
    assert "fused" in str(vf.explain(vae, x).encoder_logvar)
    assert (vf.certify.margin(vae, x, 1.0, samples=50).margin != before).all()


def test_float32_is_near(x):
    vae = wrapped("softplus", torch.float32)
    found = lowering.encoder(vae, x.float())
    assert found.std is not None
    exact = wrapped("softplus").posterior(x)[1]
    assert torch.allclose(vf.ops.net_forward(x.float().flatten(1), found.std).double(), exact)


def test_a_variance_that_is_no_exponential_says_why(x):
    vae = wrapped("softplus", output="var")
    assert "is the logarithm of what is no exponential" in str(vf.explain(vae, x))

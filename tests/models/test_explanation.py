"""What explain says is what lowering does."""

import warnings

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.models import MLPVAE, VAE, ConvVAE, as_vae, explain
from vaefast.runtime import backends


def test_an_mlp_is_fused_throughout():
    found = explain(MLPVAE((1, 4, 5), (8, 6), 3).eval())
    assert all(part.fused for part in (found.encoder_mean, found.encoder_logvar, found.decoder))
    assert found.posterior.fused
    lines = [" ".join(line.split()) for line in str(found).splitlines()]
    assert lines[0] == "encoder mean 3 layers, fused: 20-8-6-3, tanh tanh identity"
    assert "batches none are needed" in lines
    assert "latents 3" in lines
    bounds = "affine and multiplier forms, by default the smaller; joint where it is asked for"
    assert lines[-3:] == ["decoder output logits", f"certificates {bounds}", "mode evaluation"]


def test_which_bounds_certificates_can_take():
    small = explain(ConvVAE((1, 8, 8), channels=4, latent=2).eval())
    assert small.certificates.startswith("multiplier form by default")
    wide = explain(ConvVAE((1, 64, 64), channels=32, latent=2).eval())
    assert wide.certificates.startswith("affine form alone: the multiplier form takes")
    assert "at most 4096 features" in wide.certificates
    assert explain(as_vae(Probabilities())).certificates == "not known without an input; pass x"


def test_a_fixed_scale_needs_no_network():
    found = explain(MLPVAE((6,), (4,), 2, fixed_std=0.1).eval())
    assert str(found.encoder_logvar) == "one σ for all inputs"
    assert found.batches == "none are needed"


class Counting(nn.Module):
    """An encoder with batch normalisation and dropout."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.up = nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 2)

    def forward(self, x):
        return self.up(self.drop(self.norm(x)))


def test_a_model_in_training_mode_is_left_as_it_is():
    vae = VAE(encoder_mean=Counting(), encoder_logvar=nn.Linear(6, 2), decoder=nn.Linear(2, 6))
    vae.encoder.mean.drop.eval()
    before = {name: t.clone() for name, t in vae.state_dict().items()}
    modes = [layer.training for layer in vae.modules()]
    x, state = torch.rand(5, 6), torch.get_rng_state()
    found = explain(vae, x)
    assert found.mode.startswith("training: layer ")
    assert all(torch.equal(t, before[name]) for name, t in vae.state_dict().items())
    assert [layer.training for layer in vae.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.event_shape is None
    assert vae.latent_dim is None


def test_doubts_about_the_first_batch_are_left_for_it():
    torch.manual_seed(0)
    vae = as_vae(Probabilities()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = explain(vae, torch.rand(3, 6))
    assert "decode returns values in [0, 1]" in found.decoder_output
    with pytest.warns(UserWarning, match=r"all lie in \[0, 1\]"):
        vf.geometry.frobenius_norm(vae, torch.rand(3, 6))


def test_without_an_input_nothing_is_guessed():
    found = explain(as_vae(Probabilities()))
    assert "pass x" in str(found.encoder_mean)
    assert found.likelihood == "bernoulli"


def test_a_convolution_is_fused_where_the_extension_is():
    found = explain(ConvVAE((1, 8, 8), 2, 2))
    assert found.decoder.fused == bool(vf.supports("net_chain", "cpp"))
    assert found.posterior.fused == found.decoder.fused


def test_a_convolution_without_a_kernel_is_generic_and_says_which_layer(monkeypatch):
    monkeypatch.setattr(backends, "availability", lambda *_: "")
    monkeypatch.setattr(backends, "fast", lambda _: "triton")
    found = explain(ConvVAE((1, 8, 8), 2, 2))
    assert not found.decoder.fused
    assert "no kernel for the layer 'conv_transpose in=2x1x1" in found.decoder.detail
    assert not found.posterior.fused


def test_a_prior_other_than_the_standard_normal_is_generic():
    vae = MLPVAE((6,), (4,), 2, likelihood="gaussian", obs_std=0.5)
    vae.prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), 2.0), 1)
    found = explain(vae)
    assert found.decoder.fused
    assert not found.posterior.fused
    assert "prior is not N(0, I)" in str(found)
    assert found.likelihood == "gaussian, std 0.5"


class Probabilities(nn.Module):
    """A user's module whose decode gives probabilities, unless ``last`` is an Identity."""

    def __init__(self, *last):
        super().__init__()
        self.up, self.down = nn.Linear(6, 4), nn.Sequential(nn.Linear(2, 6), *last)

    def encode(self, x):
        return self.up(x).chunk(2, dim=1)

    def decode(self, z):
        out = self.down(z)
        return out if len(self.down) > 1 else torch.sigmoid(out)


@pytest.mark.parametrize("last", [(), (nn.Sigmoid(),)])
def test_logits_that_are_probabilities_are_told_by_a_run(last):
    torch.manual_seed(0)
    vae, x = as_vae(Probabilities(*last)), torch.rand(3, 6)
    assert "decode returns values in [0, 1]" in explain(vae, x).decoder_output
    assert explain(as_vae(Probabilities(nn.Identity())), x).decoder_output == "logits"
    asked = as_vae(Probabilities(*last), decoder_output="probabilities")
    assert "decode returns" not in explain(asked, x).decoder_output


def test_methods_lower_as_modules_do():
    found = explain(as_vae(Probabilities()), torch.rand(2, 6))
    assert found.encoder_mean.detail == "1 layer, fused: 6-2, identity"
    assert found.decoder.detail == "1 layer, fused: 2-6, sigmoid"


def test_only_a_vae_can_be_explained():
    with pytest.raises(TypeError, match=r"wrap it with vaefast\.as_vae"):
        explain(nn.Linear(2, 2))

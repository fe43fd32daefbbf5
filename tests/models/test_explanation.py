"""What explain says is what lowering does."""

import pytest
import torch
from torch import nn

from vaefast.models import MLPVAE, ConvVAE, as_vae, explain


def test_an_mlp_is_fast_throughout():
    found = explain(MLPVAE((1, 4, 5), (8, 6), 3))
    assert all(path.fast for path in (found.encoder_mean, found.encoder_logvar, found.decoder))
    assert found.posterior.fast
    assert found.encoder_mean.detail == "20-8-6-3, tanh tanh identity"
    lines = [" ".join(line.split()) for line in str(found).splitlines()]
    assert lines[0] == "encoder mean fast 20-8-6-3, tanh tanh identity"
    assert lines[-1] == "decoder output logits"


def test_a_convolution_is_generic_and_says_which_layer():
    found = explain(ConvVAE((1, 8, 8), 2, 2))
    assert not found.decoder.fast
    assert "no kernel for the layer 'conv_transpose in=2x1x1" in found.decoder.detail
    assert not found.posterior.fast


def test_a_prior_other_than_the_standard_normal_is_generic():
    vae = MLPVAE((6,), (4,), 2, likelihood="gaussian", obs_std=0.5)
    vae.prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), 2.0), 1)
    found = explain(vae)
    assert found.decoder.fast
    assert not found.posterior.fast
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
    assert found.encoder_mean.detail == "6-2, identity"
    assert "pass x" in explain(as_vae(Probabilities())).encoder_mean.detail
    assert found.decoder.detail == "2-6, sigmoid"


def test_only_a_vae_can_be_explained():
    with pytest.raises(TypeError, match="wrap it in as_vae"):
        explain(nn.Linear(2, 2))

"""What explain says is what lowering does."""

import pytest
import torch
from torch import nn

from vaefast.models import MLPVAE, ConvVAE, explain


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
    assert "'decoder.1' (ConvTranspose2d)" in found.decoder.detail
    assert not found.posterior.fast


def test_a_prior_other_than_the_standard_normal_is_generic():
    vae = MLPVAE((6,), (4,), 2, likelihood="gaussian", obs_std=0.5)
    vae.prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), 2.0), 1)
    found = explain(vae)
    assert found.decoder.fast
    assert not found.posterior.fast
    assert "prior is not N(0, I)" in str(found)
    assert found.likelihood == "gaussian, std 0.5"


def test_only_a_vae_can_be_explained():
    with pytest.raises(TypeError, match="wrap it in as_vae"):
        explain(nn.Linear(2, 2))

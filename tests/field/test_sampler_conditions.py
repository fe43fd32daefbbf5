"""Conditions that a decoder reads from a buffer by position went to other rows, without a word.

The sampler repeats rows for chains and puts them at places of their own, so that such a decoder
gives a row the condition of another. It is refused, and ``context=`` named.
"""

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.hmc import defend, sample, tune
from vaefast.models import VAE, ConvVAE

D, LATENTS = 6, 2
RUN = {"steps": 3, "warmup": 2, "leapfrog": 2}


class Buffered(nn.Module):
    """Adds row i of a buffer to row i, in one of the ways that survive other batch sizes."""

    def __init__(self, rows, way):
        super().__init__()
        self.linear = nn.Linear(LATENTS, D)
        self.register_buffer("conditions", torch.randn(rows, D))
        self.way = way

    def forward(self, z):
        if self.way == "first":
            return self.linear(z) + self.conditions[: len(z)]
        return self.linear(z) + self.conditions[torch.arange(len(z)) % len(self.conditions)]


class Given(nn.Module):
    """The same with its condition as an argument."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(LATENTS, D)

    def forward(self, z, context):
        return self.linear(z) + context


def model(decoder, prior=None):
    vae = VAE(
        encoder_mean=nn.Linear(D, LATENTS),
        encoder_logvar=torch.zeros(LATENTS),
        decoder=decoder,
        likelihood="gaussian",
        prior=prior,
    )
    return vae.eval()


@pytest.mark.parametrize("chains", [1, 4])
@pytest.mark.parametrize(("rows", "way"), [(300, "first"), (300, "again"), (5, "again")])
def test_a_buffer_by_position_is_refused(rows, way, chains):
    torch.manual_seed(0)
    vae, x = model(Buffered(rows, way)), torch.rand(5, D)
    for call in (sample, defend):
        with pytest.raises(RuntimeError, match="context=") as caught:
            call(vae, x, chains=chains, **RUN)
        assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match="context="):
        tune(vae, x, leapfrogs=(2,), warmup=2, steps=2)


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("rows", [1, 5])
def test_so_is_a_prior(rows, blocks):
    torch.manual_seed(0)
    centres = torch.randn(300, LATENTS)
    prior = lambda z: -0.5 * (z - centres[: len(z)]).square().sum(1)  # noqa: E731
    vf.set_block(64 if blocks else None)
    with pytest.raises(RuntimeError, match="context="):
        sample(model(nn.Linear(LATENTS, D), prior), torch.rand(rows, D), **RUN)


@pytest.mark.parametrize("chains", [1, 4])
def test_a_context_is_not(chains):
    torch.manual_seed(0)
    x, conditions = torch.rand(5, D), torch.randn(5, D)
    vae = model(Given())
    with vf.same_bits():
        result = sample(vae, x, context=conditions, chains=chains, **RUN)
        one = sample(
            vae, x[3:4], context=conditions[3:4], chains=chains, index=torch.tensor([3]), **RUN
        )
    torch.testing.assert_close(result.z[3:4], one.z, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.filterwarnings("ignore::vaefast.hmc.SamplerWarning")
def test_rounding_by_place_is_no_reason(dtype):
    vae = ConvVAE((1, 8, 8), channels=4, latent=4, seed=0).to(dtype).eval()
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x = x.double() if dtype == torch.float64 else x
    assert not sample(vae, x, chains=2, **RUN).failed.any()

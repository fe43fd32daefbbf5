"""A half-precision MLP with float32 inputs was refused in terms of packed weights.

Whatever the model's dtype, inputs in half or single precision are sampled in float32; any other
pair is refused in the caller's terms, and ``precision="float64"`` takes all of them.
"""

import pytest
import torch

from vaefast.hmc import sample
from vaefast.models import MLPVAE, ConvVAE

MODELS = {
    "convolutional": lambda: ConvVAE((1, 8, 8), channels=4, latent=4, seed=0),
    "perceptron": lambda: MLPVAE((1, 8, 8), hidden=(8,), latent=4, seed=0),
}
HALF = (torch.float16, torch.bfloat16)
DTYPES = (*HALF, torch.float32, torch.float64)
RUN = {"steps": 2, "warmup": 2, "leapfrog": 2}


@pytest.mark.parametrize("given", DTYPES)
@pytest.mark.parametrize("weights", DTYPES)
@pytest.mark.parametrize("name", MODELS)
def test_every_pair_of_dtypes(name, weights, given):
    vae = MODELS[name]().to(weights).eval()
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(given)
    if weights in HALF or weights == given:
        result = sample(vae, x, **RUN)
        assert result.z.dtype == (torch.float32 if given in HALF else given)
        assert not result.failed.any()
    else:
        name = str(weights).removeprefix("torch.")
        with pytest.raises(TypeError, match=f"^x must be {name} like the model, got"):
            sample(vae, x, **RUN)
    promoted = sample(vae, x, precision="float64", **RUN)
    assert promoted.z.dtype == torch.float64
    assert not promoted.failed.any()

"""Likelihood degradation against its formula, with the noise drawn independently."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vaefast as vf
from vaefast import philox
from vaefast.metrics import likelihood_degradation
from vaefast.models import MLPVAE, VAE, ConvVAE, as_vae
from vaefast.philox import Use


class Plain(nn.Module):
    """A user's module with encode and decode in Python."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.inner, self.outer = nn.Linear(64, 8), nn.Linear(4, 64)

    def encode(self, x):
        return self.inner(x.flatten(1)).tanh().chunk(2, dim=1)

    def decode(self, z):
        return self.outer(z).view(-1, 1, 8, 8)


MODELS = {
    "mlp": lambda: MLPVAE((1, 8, 8), hidden=(16,), latent=3),
    "gaussian": lambda: MLPVAE((1, 8, 8), (16,), 3, likelihood="gaussian", obs_std=0.3),
    "conv": lambda: ConvVAE((1, 8, 8), channels=4, latent=3),
    "plain": lambda: as_vae(Plain()),
}


@pytest.fixture(params=MODELS)
def vae(request):
    return MODELS[request.param]().eval()


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, 1, 8, 8, generator=generator)
    return x, (x + 0.3 * torch.randn(6, 1, 8, 8, generator=generator)).clamp(0, 1)


@torch.no_grad()
def by_hand(vae, x, x_adv, seed, index):
    values = []
    for source in (x, x_adv):
        mean, logvar = vae.encode(source)
        noise = philox.normal(mean.shape[1], seed=seed, index=index, use=Use.POSTERIOR)
        out = vae.decode(mean + torch.exp(logvar / 2) * noise.float()).double()
        if vae.likelihood == "gaussian":
            logp = torch.distributions.Normal(out, vae.obs_std).log_prob(x.double())
        else:
            logp = -F.binary_cross_entropy_with_logits(out, x.double(), reduction="none")
        values.append(logp.flatten(1).sum(1))
    return (values[1] - values[0]).abs() / values[0].abs()


def test_formula(vae, pair):
    index = torch.tensor([5, 0, 77, 2**33, 9, 1])
    value = likelihood_degradation(vae, *pair, seed=4, index=index)
    assert value.dtype == torch.float64
    torch.testing.assert_close(value, by_hand(vae, *pair, 4, index), rtol=1e-4, atol=1e-6)


def test_no_change_costs_nothing(vae, pair):
    x, _ = pair
    assert torch.equal(likelihood_degradation(vae, x, x.clone()), torch.zeros(6).double())


def test_a_row_depends_on_its_index_and_the_seed_only(vae, pair):
    x, x_adv = pair
    whole = likelihood_degradation(vae, x, x_adv, seed=1)
    alone = likelihood_degradation(vae, x[4:], x_adv[4:], seed=1, index=torch.tensor([4, 5]))
    torch.testing.assert_close(alone, whole[4:], rtol=1e-4, atol=1e-7)
    assert not torch.allclose(whole, likelihood_degradation(vae, x, x_adv, seed=2))


def test_nan_in_either_stays_in_its_row(vae, pair):
    x, x_adv = (t.clone() for t in pair)
    clean = likelihood_degradation(vae, x, x_adv)
    x[1, 0, 0, 0], x_adv[3, 0, 2, 2] = torch.nan, torch.inf
    value = likelihood_degradation(vae, x, x_adv)
    assert value.isnan().tolist() == [False, True, False, True, False, False]
    good = [0, 2, 4, 5]
    torch.testing.assert_close(value[good], clean[good], rtol=1e-4, atol=1e-7)


def test_chunks_and_the_model(vae, pair):
    whole = likelihood_degradation(vae, *pair)
    vf.set_memory(20_000)
    torch.testing.assert_close(likelihood_degradation(vae, *pair), whole, rtol=1e-4, atol=1e-7)
    assert all(p.grad is None for p in vae.parameters())


def test_memory_is_bounded_under_inference_mode(pair):
    vae, widths = MODELS["conv"](), []
    vae.decoder.register_forward_hook(lambda m, inputs, o: widths.append(len(inputs[0])))
    vf.set_memory(20_000)
    expected = likelihood_degradation(vae, *pair)
    widest = max(widths)
    widths.clear()
    with torch.inference_mode():
        value = likelihood_degradation(vae, *(t.clone() for t in pair))
    assert max(widths) == widest < 6
    assert torch.equal(value, expected)


def test_a_likelihood_of_1():
    """log p(x|z) = 0: no change from it costs nothing."""
    decoder = nn.Linear(1, 2, bias=False)
    nn.init.constant_(decoder.weight, 0.0)
    mean = nn.Linear(2, 1, bias=False)
    vae = VAE(
        encoder_mean=mean,
        encoder_logvar=torch.zeros(1),
        decoder=decoder,
        likelihood="continuous_bernoulli",
    )
    x = torch.rand(3, 2)
    assert likelihood_degradation(vae.eval(), x, 1 - x).tolist() == [0.0] * 3


def test_refuses(vae, pair):
    x, x_adv = pair
    with pytest.raises(TypeError, match="seed must be a whole number"):
        likelihood_degradation(vae, x, x_adv, seed=None)
    with pytest.raises(ValueError, match="x_adv must be"):
        likelihood_degradation(vae, x, x_adv[:3])
    dropping = MLPVAE((1, 8, 8), hidden=(8,), latent=2)
    dropping.decoder.append(nn.Dropout(0.5))
    with pytest.raises(RuntimeError, match=r"model.eval\(\)"):
        likelihood_degradation(dropping.train(), x, x_adv)


def test_refuses_what_is_no_vae(pair):
    with pytest.raises(TypeError, match=r"vae must be a vaefast\.VAE"):
        likelihood_degradation(nn.Linear(2, 2), *pair)


def test_empty_batch(vae):
    x = torch.zeros(0, 1, 8, 8)
    assert likelihood_degradation(vae, x, x).shape == (0,)

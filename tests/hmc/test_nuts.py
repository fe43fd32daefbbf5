"""Agreement with an independent sampler: NumPyro's NUTS on the same densities, written in JAX.

Means and variances agree within Monte-Carlo error. Where NumPyro is not installed this is skipped.
"""

from functools import partial

import pytest
import torch
from torch import nn

from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops._stacks import stack
from vaefast.hmc import sample, sample_groups
from vaefast.hmc.mixing import effective_draws
from vaefast.models import MLPVAE, ConvVAE, as_hierarchical
from vaefast.models.prepare import prepare
from vaefast.types import all_linear

pytestmark = pytest.mark.proof
CHAINS, WARMUP, STEPS = 8, 300, 1500
OURS = {"chains": CHAINS, "warmup": WARMUP, "steps": STEPS, "seed": 4}


@pytest.fixture
def nuts():
    """Draws [C, T, d] float64 of a potential of z [d], from z [C, d]."""
    pytest.importorskip("numpyro", reason="pip install vaefast[proofs]")
    import jax
    from numpyro.infer import MCMC, NUTS

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)

    def run(potential, start):
        kernel = NUTS(potential_fn=potential, target_accept_prob=0.85)
        options = {"num_chains": len(start), "chain_method": "vectorized", "progress_bar": False}
        mcmc = MCMC(kernel, num_warmup=WARMUP, num_samples=STEPS, **options)
        mcmc.run(jax.random.PRNGKey(5), init_params=jx.arrays(start))
        return torch.from_dlpack(mcmc.get_samples(group_by_chain=True)).clone()

    yield run
    jax.config.update("jax_enable_x64", before)


def assert_agree(ours, theirs):
    """[C, T, d] each: moments of every latent differ by less than 4.5 standard errors."""
    mean = torch.cat((ours.flatten(0, 1), theirs.flatten(0, 1))).mean(0)
    for power in (1, 2):
        found = []
        for draws in (ours, theirs):
            values = (draws - mean).pow(power)[None]  # of one row
            spread = values.flatten(1, 2).var(1)
            count = effective_draws(values, spread)
            assert count.min() > 200
            found.append((values.mean((0, 1, 2)), (spread / count)[0]))
        (a, error), (b, other) = found
        assert ((a - b).abs() < 4.5 * (error + other).sqrt()).all()


def decoding(vae):
    """The VAE with weights that make posteriors far from round, in float64."""
    with torch.no_grad():
        for p in vae.decoder.parameters():
            p.mul_(1.3)
    return vae.double().eval().requires_grad_(False)


@pytest.mark.parametrize("kind", ["mlp", "convolutional"])
@pytest.mark.parametrize(
    "how",
    [{}, {"mass": "warmup"}, {"mass": "unit", "leapfrog": 12}],
    ids=["none", "warmup", "unit"],
)
def test_a_decoders_posterior(kind, how, nuts):
    make = {
        "mlp": partial(MLPVAE, (1, 8, 8), (24, 16), 4, seed=3),
        "convolutional": partial(ConvVAE, (1, 8, 8), 3, 5, seed=3),
    }
    vae = decoding(make[kind]())
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn(2, vae.latent_dim, generator=generator).double()
    image = vae.g(truth)
    x = (torch.rand(image.shape, generator=generator).double() < image).double()
    result = sample(vae, x, **OURS, **how)
    net = prepare(vae, x).maps.decoder.lowered
    weights, biases, layers = jx.network(net if all_linear(net.layers) else stack(net))
    network = (*jx.arrays((weights, biases)), str(layers))
    for row in range(2):
        pixels = jx.arrays(x[row].flatten())

        def potential(z, pixels=pixels):
            return jx.potential(z, pixels, *network)

        assert_agree(result.z[row].double(), nuts(potential, result.z[row, :, 0].double()))


class Ladder(nn.Module):
    """Two groups, three numbers and two, the second one's prior bent by the first; 12 bits."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        drawn = partial(torch.randn, generator=generator, dtype=torch.float64)
        self.bend = nn.Parameter(drawn(3, 2), requires_grad=False)
        self.narrow = nn.Parameter(0.5 * drawn(3, 2), requires_grad=False)
        self.out = nn.Parameter(1.5 * drawn(5, 12), requires_grad=False)

    def prior(self, top):
        """Mean and log-variance of the second group."""
        return torch.tanh(top @ self.bend), torch.sin(top @ self.narrow)

    def path(self, x, noise):
        found = [(noise[0], 0 * noise[0], 0 * noise[0])]
        mean, logvar = self.prior(noise[0])
        found.append((mean + torch.exp(0.5 * logvar) * noise[-1], mean, logvar))
        return found[: len(noise)]

    def decode(self, z):
        return torch.tanh(torch.cat(z, 1)) @ self.out

    def log_joint(self, z, x):
        top, low = z
        mean, logvar = self.prior(top)
        energy = 0.5 * top.square().sum(1)
        energy = energy + 0.5 * ((low - mean).square() * torch.exp(-logvar) + logvar).sum(1)
        loss = nn.functional.binary_cross_entropy_with_logits(self.decode(z), x, reduction="none")
        return -energy - loss.sum(1)


def ladder_in_jax(module, x):
    """Its potential of z [5] at one image."""
    bend, narrow, out, bits = jx.arrays((module.bend, module.narrow, module.out, x))

    def potential(z):
        import jax.numpy as jnp

        top, low = z[:3], z[3:]
        mean, logvar = jnp.tanh(top @ bend), jnp.sin(top @ narrow)
        prior = jnp.sum(top**2) + jnp.sum((low - mean) ** 2 / jnp.exp(logvar) + logvar)
        logits = jnp.tanh(z) @ out
        return 0.5 * prior + jnp.sum(jnp.logaddexp(0.0, logits) - bits * logits)

    return potential


def test_a_hierarchical_posterior(nuts):
    module = Ladder()
    model = as_hierarchical(
        module,
        posterior_path=module.path,
        log_joint=module.log_joint,
        prior_path=lambda z, noise: module.path(None, noise),
        decode=module.decode,
        shapes=[(3,), (2,)],
        likelihood="bernoulli",
    )
    x = torch.randint(0, 2, (2, 12), generator=torch.Generator().manual_seed(6)).double()
    z = sample_groups(model, x, **OURS, leapfrog=8).chain.z
    for row in range(2):
        assert_agree(z[row], nuts(ladder_in_jax(module, x[row]), z[row, :, 0]))

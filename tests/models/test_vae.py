"""The VAE protocol: q(z|x), p(x|z), g, and what is refused with which words."""

import copy
import math

import pytest
import torch
from torch import nn

from vaefast.models import MLPVAE, VAE, as_vae

EVENT = (1, 4, 5)
D, d = 20, 3


def networks(dtype=torch.float64):
    torch.manual_seed(0)
    mean = nn.Sequential(nn.Flatten(), nn.Linear(D, d))
    logvar = nn.Sequential(nn.Flatten(), nn.Linear(D, d))
    decoder = nn.Sequential(nn.Linear(d, D), nn.Unflatten(1, EVENT))
    return {
        "encoder_mean": mean.to(dtype),
        "encoder_logvar": logvar.to(dtype),
        "decoder": decoder.to(dtype),
    }


class UserVAE(nn.Module):
    """A user's module, as plain as they come; ``decode`` may return flat rows."""

    def __init__(self, event=EVENT, flat=False):
        super().__init__()
        self.inner = nn.Linear(math.prod(event), 8)
        self.mean, self.logvar = nn.Linear(8, d), nn.Linear(8, d)
        self.outer = nn.Linear(d, math.prod(event))
        self.event, self.flat = event, flat

    def encode(self, x):
        hidden = torch.relu(self.inner(x.flatten(1)))
        return self.mean(hidden), self.logvar(hidden)

    def decode(self, z):
        out = self.outer(z)
        return out if self.flat else out.reshape(-1, *self.event)


@pytest.fixture
def x():
    return torch.rand(6, *EVENT, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_encode_posterior_and_decode_are_the_networks(x):
    parts = networks()
    vae = VAE(**parts)
    mean, logvar = vae.encode(x)
    assert torch.equal(mean, parts["encoder_mean"](x))
    assert torch.equal(logvar, parts["encoder_logvar"](x))
    assert torch.allclose(vae.posterior(x)[1] ** 2, logvar.exp(), rtol=1e-12)
    assert torch.equal(vae.decode(mean), parts["decoder"](mean))
    assert torch.equal(vae.g(mean), torch.sigmoid(parts["decoder"](mean)))
    assert torch.equal(vae.reconstruct(x), vae.g(mean))
    assert vae.prior is None
    assert not vae.fixed_std


def test_gaussian_decoder_gives_the_mean_unclipped(x):
    vae = VAE(**networks(), likelihood="gaussian", obs_std=0.3)
    z = 100 * torch.randn(4, d, dtype=torch.float64)
    assert torch.equal(vae.g(z), vae.decode(z))
    assert (vae.g(z) > 1).any()
    assert (vae.decoder_output, vae.obs_std) == ("mean", 0.3)


def test_the_trunk_is_run_once_and_both_heads_take_its_output(x):
    calls = []
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(D, 7)).double()
    trunk.register_forward_hook(lambda *_: calls.append(1))
    heads = nn.Linear(7, d).double(), nn.Linear(7, d).double()
    decoder = networks()["decoder"]
    vae = VAE(trunk=trunk, encoder_mean=heads[0], encoder_logvar=heads[1], decoder=decoder)
    mean, logvar = vae.encode(x)
    assert len(calls) == 1
    assert torch.equal(mean, heads[0](trunk(x)))
    assert torch.equal(logvar, heads[1](trunk(x)))


@pytest.mark.parametrize("wrap", [nn.Parameter, lambda t: t], ids=["parameter", "buffer"])
def test_a_fixed_logvar_is_the_same_for_every_input(x, wrap):
    fixed = torch.tensor([0.0, -1.0, -2.0], dtype=torch.float64)
    vae = VAE(**{**networks(), "encoder_logvar": wrap(fixed)})
    assert vae.fixed_std
    assert torch.equal(vae.encode(x)[1], fixed.expand(6, d))
    assert "encoder.logvar" in vae.state_dict()


def test_as_vae_shares_the_module_and_gives_its_numbers(x):
    module = UserVAE().double()
    vae = as_vae(module, likelihood="continuous_bernoulli")
    assert torch.equal(vae.encode(x)[0], module.encode(x)[0])
    assert torch.equal(vae.encode(x)[1], module.encode(x)[1])
    z = vae.encode(x)[0]
    assert torch.equal(vae.decode(z), module.decode(z))
    assert {id(p) for p in vae.parameters()} == {id(p) for p in module.parameters()}
    assert as_vae(vae) is vae
    assert as_vae(vae, likelihood="continuous_bernoulli") is vae


def test_flat_decoder_output_takes_the_event_shape(x):
    module = UserVAE(flat=True).double()
    vae = as_vae(module)
    z = module.encode(x)[0]
    assert vae.decode(z).shape == (6, D)  # nothing was encoded yet
    vae.encode(x)
    assert torch.equal(vae.decode(z), module.decode(z).reshape(6, *EVENT))
    known = as_vae(module, event_shape=EVENT)
    assert torch.equal(known.decode(z), vae.decode(z))


def test_modules_that_are_encode_and_decode_attributes(x):
    module = UserVAE().double()
    module.decode = nn.Sequential(nn.Linear(d, D), nn.Unflatten(1, EVENT)).double()
    z = torch.randn(2, d, dtype=torch.float64)
    assert torch.equal(as_vae(module).decode(z), module.decode(z))


def test_nothing_of_the_callers_model_changes(x):
    module = UserVAE().double().eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    vae = as_vae(module)
    vae.reconstruct(x)
    assert not module.training
    assert all(p.grad is None for p in module.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_a_deep_copy_is_independent(x):
    vae = as_vae(UserVAE().double())
    twin = copy.deepcopy(vae)
    assert torch.equal(twin.reconstruct(x), vae.reconstruct(x))
    with torch.no_grad():
        next(twin.parameters()).add_(1.0)
    assert not torch.equal(twin.reconstruct(x), vae.reconstruct(x))


def test_it_works_under_function_transforms(x):
    vae = as_vae(UserVAE(flat=True).double())
    z = vae.encode(x)[0].detach()
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: vae.g(row[None])[0]))(z)
    loop = [torch.autograd.functional.jacobian(lambda row: vae.g(row[None])[0], row) for row in z]
    assert torch.allclose(jacobian, torch.stack(loop), atol=1e-12)


def test_half_precision_modules_keep_the_inputs_dtype():
    vae = MLPVAE((2, 3), (8,), 4).bfloat16()
    x = torch.rand(5, 2, 3)
    mean, logvar = vae.encode(x)
    assert {mean.dtype, logvar.dtype, vae.g(mean).dtype} == {torch.float32}


def test_log_prior_is_the_density(x):
    vae = VAE(**networks())
    z = torch.randn(5, d)
    normal = torch.distributions.Normal(torch.zeros(d), torch.ones(d))
    expected = normal.log_prob(z).sum(1).double()
    assert torch.allclose(vae.log_prior(z), expected, rtol=1e-6)
    wide = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(d), 2.0), 1)
    for prior in (wide, wide.log_prob):
        vae = VAE(**networks(), prior=prior)
        assert torch.equal(vae.log_prior(z), wide.log_prob(z).double())
    with pytest.raises(ValueError, match=r"prior must give log p\(z\) as \[n\] = \[5\]"):
        VAE(**networks(), prior=normal).log_prior(z)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"likelihood": "poisson"}, ValueError, "likelihood must be one of 'bernoulli'"),
        ({"obs_std": 0.0}, ValueError, "obs_std must be positive and finite, got 0"),
        ({"obs_std": math.inf}, ValueError, "obs_std must be positive and finite, got inf"),
        ({"obs_std": "1"}, TypeError, "obs_std must be a number, got str"),
        ({"decoder_output": "mean"}, ValueError, 'must be "logits" or "probabilities"'),
        ({"likelihood": "gaussian", "decoder_output": "logits"}, ValueError, 'must be "mean"'),
        ({"encoder_mean": 1}, TypeError, "encoder_mean must be an nn.Module, got int"),
        ({"encoder_logvar": 0.1}, TypeError, r"an nn.Module or a \[d\] tensor, got float"),
        ({"encoder_logvar": torch.zeros(2, d)}, ValueError, r"\[d\] tensor, got \[2, 3\]"),
        ({"encoder_logvar": torch.zeros(d).int()}, TypeError, "must be a floating tensor"),
        ({"encoder_logvar": torch.full((d,), -math.inf)}, ValueError, "must be finite"),
        ({"decoder": None}, TypeError, "decoder must be an nn.Module, got NoneType"),
        ({"prior": 3}, TypeError, "prior must be None for N"),
        ({"event_shape": (1, 0)}, ValueError, "event_shape must be at least 1, got 0"),
        ({"event_shape": 20}, TypeError, "event_shape must be a sequence"),
    ],
)
def test_arguments_are_checked(change, error, words):
    with pytest.raises(error, match=words):
        VAE(**{**networks(), **change})


def test_inputs_are_checked(x):
    vae = VAE(**networks(), event_shape=EVENT)
    with pytest.raises(ValueError, match=r"x must be \[B, 1, 4, 5\] for this model, got"):
        vae.encode(x.flatten(1))
    with pytest.raises(
        TypeError, match=r"x must be float64 like the model, got float32; pass x.to"
    ):
        vae.encode(x.float())
    with pytest.raises(TypeError, match="must be floating, got uint8"):
        vae.encode((255 * x).byte())
    vae.encode(x)
    with pytest.raises(ValueError, match=r"z must be \[n, 3\], got \[2, 4\]"):
        vae.decode(torch.zeros(2, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"z must be \[n, 3\], got \[1, 2, 3\]"):
        vae.decode(torch.zeros(1, 2, 3, dtype=torch.float64))
    fixed = VAE(**{**networks(), "encoder_logvar": torch.zeros(4, dtype=torch.float64)})
    with pytest.raises(ValueError, match=r"encoder_logvar must be \[d\] = \[3\]"):
        fixed.encode(x)


def test_as_vae_says_what_a_module_lacks():
    with pytest.raises(
        TypeError, match=r"Linear lacks encode and decode, and .*; build vaefast.VAE"
    ):
        as_vae(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"module must be an nn.Module, got function"):
        as_vae(lambda x: x)
    with pytest.raises(ValueError, match="module is a VAE with likelihood 'bernoulli' already"):
        as_vae(VAE(**networks()), likelihood="gaussian")


@pytest.mark.parametrize(
    ("option", "value"),
    [("likelihood", "bernoulli"), ("obs_std", 1.0), ("event_shape", [4, 5])],
)
def test_a_default_that_is_given_is_given(option, value):
    vae = VAE(**networks(), likelihood="gaussian", obs_std=0.3, event_shape=EVENT)
    with pytest.raises(ValueError, match=f"module is a VAE with {option} .* already, got"):
        as_vae(vae, **{option: value})
    assert as_vae(vae, likelihood="gaussian", obs_std=0.3, event_shape=list(EVENT)) is vae
    assert as_vae(vae) is vae


def returning(encode=None, decode=None):
    module = UserVAE().double()
    if encode is not None:
        module.encode = encode
    if decode is not None:
        module.decode = decode
    return as_vae(module)


@pytest.mark.parametrize(
    ("encode", "error", "words"),
    [
        (
            lambda x: x.flatten(1),
            TypeError,
            r"two tensors \[B, d\], or .*, got Tensor",
        ),
        (lambda x: (x, x, x, x), TypeError, "got a tuple of 4"),
        (lambda x: {"mean": x}, TypeError, "got dict with mean"),
        (lambda x: (x, 0.0), TypeError, "got a tuple of 2"),
        (lambda x: (x[:, 0, 0, 0],) * 2, ValueError, r"mean must be \[6, d\], got \[6\]"),
        (lambda x: (x[:1].flatten(1),) * 2, ValueError, r"mean must be \[6, d\], got \[1, 20\]"),
        (lambda x: (x.flatten(1), x[:, 0, 0]), ValueError, r"must be \[6, 20\] like its mean"),
    ],
)
def test_what_encode_returns_is_checked(x, encode, error, words):
    with pytest.raises(error, match=words):
        returning(encode=encode).encode(x)


@pytest.mark.parametrize(
    ("decode", "error", "words"),
    [
        (lambda z: (1.0, z), TypeError, r"tensor \[n, \*event\], got a tuple of 2"),
        (lambda z: z, ValueError, r"must return \[6, 1, 4, 5\], got \[6, 3\]"),
        (lambda z: z.new_zeros(6, 4, 5, 1), None, None),  # the same but for sizes of one
        (lambda z: z.new_zeros(6, 5, 4), ValueError, r"got \[6, 5, 4\]"),  # a transposed image
        (lambda z: z.new_zeros(1, 1, 4, 5), ValueError, r"got \[1, 1, 4, 5\]"),
        (lambda z: z.new_zeros(6), ValueError, r"got \[6\]"),
    ],
)
def test_what_decode_returns_is_checked(x, decode, error, words):
    vae = returning(decode=decode)
    z = vae.encode(x)[0]
    if error is None:
        assert vae.decode(z).shape == x.shape
        return
    with pytest.raises(error, match=words):
        vae.decode(z)

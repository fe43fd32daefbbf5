"""Styles of fully connected modules that people write: the network is the module."""

import pytest
import torch
import torch.nn.functional as F
from torch import distributions, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import vaefast as vf
from vaefast.functional.network import evaluate
from vaefast.models import MaxMin, lowering

FLAT = (12,)


def mlp(*tail, out=10):
    return nn.Sequential(nn.Linear(12, out), *tail)


class Of(nn.Module):
    """A module from parts and a forward in Python code."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.code = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.code(self, x)


def linears(**sizes):
    return {name: nn.Linear(*size) for name, size in sizes.items()}


def functional(m, x):
    h = F.relu(m.a(x.view(x.size(0), -1)))
    return torch.sigmoid(m.b(F.dropout(h, 0.5, m.training)))


def inplace(m, x):
    h = m.a(x)
    h.relu_()
    h += 1.0
    return m.b(h).tanh_()


def two_heads_joined(m, x):
    h = torch.tanh(m.a(x))
    return torch.cat([m.b(h), m.c(h)], dim=1)


class MCDropout(nn.Dropout):
    def forward(self, x):
        return F.dropout(x, self.p, training=False)


class Shifted(nn.ReLU):
    def forward(self, x):
        return F.relu(x + 0.25)


def batch_norm(layer):
    with torch.no_grad():
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2.0)
        layer.weight.uniform_(-2.0, 2.0)
        layer.bias.normal_()
    return layer


def bn1(n=10):
    return batch_norm(nn.BatchNorm1d(n))


LOWERED = {
    "sequential": (lambda: mlp(nn.Tanh(), nn.Linear(10, 4)), FLAT),
    "nested": (
        lambda: nn.Sequential(nn.Sequential(nn.Flatten(), mlp(nn.ReLU())), nn.Linear(10, 3)),
        (3, 4),
    ),
    "functional": (lambda: Of(functional, **linears(a=(12, 9), b=(9, 6))), (3, 4)),
    "in place": (lambda: Of(inplace, **linears(a=(12, 9), b=(9, 6))), FLAT),
    "no bias": (lambda: nn.Sequential(nn.Linear(12, 5, bias=False), nn.ELU(0.5)), FLAT),
    "joined heads": (
        lambda: Of(two_heads_joined, **linears(a=(12, 9), b=(9, 3), c=(9, 3))),
        FLAT,
    ),
    "matmul": (
        lambda: Of(lambda m, x: x @ m.w + m.b, w=nn.Parameter(torch.randn(12, 5)), b=torch.ones(5)),
        FLAT,
    ),
    "squeeze": (lambda: Of(lambda m, x: m.a(x.squeeze()), a=nn.Linear(12, 4)), (1, 1, 12)),
    "unsqueeze": (lambda: Of(lambda m, x: m.a(x)[:, None, :, None], a=nn.Linear(12, 4)), FLAT),
    "interleaved views": (
        lambda: Of(lambda m, x: m.a(x).view(-1, 5, 2).unbind(-1)[1], a=nn.Linear(12, 10)),
        FLAT,
    ),
    "chunk": (lambda: Of(lambda m, x: m.a(x).chunk(2, 1)[0].tanh(), a=nn.Linear(12, 10)), FLAT),
    "split": (lambda: Of(lambda m, x: m.a(x).split([4, 6], 1)[1], a=nn.Linear(12, 10)), FLAT),
    "slice": (lambda: Of(lambda m, x: m.a(x)[:, 1::3], a=nn.Linear(12, 10)), FLAT),
    "index": (lambda: Of(lambda m, x: m.a(x)[:, [7, 2, 2]], a=nn.Linear(12, 10)), FLAT),
    "half of a hidden layer": (
        lambda: Of(lambda m, x: m.b(torch.relu(m.a(x))[:, 5:]), **linears(a=(12, 10), b=(5, 3))),
        FLAT,
    ),
    "transposed into a linear layer": (
        lambda: Of(lambda m, x: m.a(x.transpose(1, 2).reshape(-1, 12)), a=nn.Linear(12, 4)),
        (3, 4),
    ),
    "channels last into a linear layer": (
        lambda: Of(
            lambda m, x: m.a(m.c(x).permute(0, 2, 3, 1).flatten(1)),
            c=nn.Conv2d(2, 3, 3),
            a=nn.Linear(108, 4),
        ),
        (2, 8, 8),
    ),
    "flip": (lambda: Of(lambda m, x: m.a(x.flip(-1)), a=nn.Linear(12, 4)), FLAT),
    "batch norm after": (lambda: mlp(bn1(), nn.ReLU(), nn.Linear(10, 3)), FLAT),
    "batch norm after the activation": (lambda: mlp(nn.ReLU(), bn1(), nn.Linear(10, 3)), FLAT),
    "batch norm first": (lambda: nn.Sequential(bn1(12), nn.Linear(12, 4)), FLAT),
    "batch norm last, after an activation": (lambda: mlp(nn.ReLU(), bn1()), FLAT),
    "batch norm without parameters": (
        lambda: mlp(nn.BatchNorm1d(10, affine=False), nn.Tanh()),
        FLAT,
    ),
    "dropout": (lambda: mlp(nn.Dropout(0.5), nn.ReLU(), nn.AlphaDropout(0.2)), FLAT),
    "dropout of one's own": (lambda: mlp(MCDropout(0.5), nn.ReLU()), FLAT),
    "activation of one's own": (lambda: mlp(Shifted(), nn.Linear(10, 3)), FLAT),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(12, 4)), FLAT),
    "weight norm, old": (lambda: weight_norm(nn.Linear(12, 4)), FLAT),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Linear(12, 4)), FLAT),
    "spectral norm, old": (lambda: spectral_norm(nn.Linear(12, 4)), FLAT),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(12, 4)), FLAT),
    "clamp": (lambda: Of(lambda m, x: m.a(x).clamp(-4, 2), a=nn.Linear(12, 4)), FLAT),
    "clamp, open": (lambda: Of(lambda m, x: m.a(x).clamp(max=0.5), a=nn.Linear(12, 4)), FLAT),
    "softplus": (lambda: Of(lambda m, x: F.softplus(m.a(x)) + 1e-4, a=nn.Linear(12, 4)), FLAT),
    "softplus, steep": (lambda: mlp(nn.Softplus(beta=3.0)), FLAT),
    "exp": (lambda: Of(lambda m, x: torch.exp(0.5 * m.a(x)), a=nn.Linear(12, 4)), FLAT),
    "log of a scale": (
        lambda: Of(lambda m, x: 2 * torch.log(torch.exp(m.a(x))), a=nn.Linear(12, 4)),
        FLAT,
    ),
    "log sigmoid": (lambda: mlp(nn.LogSigmoid(), nn.Linear(10, 3)), FLAT),
    "normalised input": (lambda: Of(lambda m, x: m.a((x - 0.5) / 0.2), a=nn.Linear(12, 4)), FLAT),
    "scales and shifts": (
        lambda: Of(lambda m, x: 1 - 2 * torch.tanh(-m.a(x) / 3).mul(0.5), a=nn.Linear(12, 4)),
        FLAT,
    ),
    "scale by a buffer": (
        lambda: Of(
            lambda m, x: m.b(m.s * torch.relu(m.a(x))),
            s=torch.rand(9),
            **linears(a=(12, 9), b=(9, 3)),
        ),
        FLAT,
    ),
    "selu": (lambda: mlp(nn.SELU()), FLAT),
    "hardtanh": (lambda: mlp(nn.Hardtanh(-0.5, 0.7)), FLAT),
    "relu6": (lambda: mlp(nn.ReLU6()), FLAT),
    "hardswish": (lambda: mlp(nn.Hardswish()), FLAT),
    "hardsigmoid": (lambda: mlp(nn.Hardsigmoid()), FLAT),
    "mish": (lambda: mlp(nn.Mish()), FLAT),
    "celu": (lambda: mlp(nn.CELU(0.7)), FLAT),
    "prelu": (lambda: mlp(nn.PReLU()), FLAT),
    "gelu": (lambda: mlp(nn.GELU(), nn.Linear(10, 8), nn.GELU("tanh")), FLAT),
    "silu by hand": (
        lambda: Of(lambda m, x: (lambda h: h * torch.sigmoid(h))(m.a(x)), a=nn.Linear(12, 4)),
        FLAT,
    ),
    "maxmin": (lambda: mlp(MaxMin(), nn.Linear(10, 3)), FLAT),
    "two activations": (lambda: mlp(nn.ReLU(), nn.Tanh()), FLAT),
    "activation first": (lambda: nn.Sequential(nn.ReLU(), nn.Linear(12, 3)), FLAT),
    "residual": (
        lambda: Of(
            lambda m, x: m.b((lambda h: h + torch.tanh(m.r(h)))(m.a(x))),
            **linears(a=(12, 9), r=(9, 9), b=(9, 3)),
        ),
        FLAT,
    ),
    "residual with the input": (
        lambda: Of(lambda m, x: x - 0.1 * m.b(torch.relu(m.a(x))), **linears(a=(12, 9), b=(9, 12))),
        FLAT,
    ),
    "residual before the activation": (
        lambda: Of(
            lambda m, x: (lambda h: torch.relu(h + m.c(torch.relu(h))))(m.a(x)),
            **linears(a=(12, 9), c=(9, 9)),
        ),
        FLAT,
    ),
    "sigmoid module": (lambda: mlp(nn.Sigmoid()), FLAT),
}


def fresh(rows, event, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(rows, *event, dtype=torch.float64, generator=generator)


def made(name):
    torch.manual_seed(0)
    maker, event = LOWERED[name]
    return maker().double().eval(), event


@pytest.mark.parametrize("name", LOWERED)
def test_the_network_is_the_module(name):
    module, event = made(name)
    net = vf.lower(module, fresh(4, event))
    x = fresh(7, event, seed=2)
    expected = module(x).flatten(1)
    torch.testing.assert_close(evaluate(x.flatten(1), net), expected, rtol=1e-11, atol=1e-12)
    assert (net.in_features, net.out_features) == (x[0].numel(), expected.shape[1])
    if net.is_mlp and backends_know(net):
        out = vf.ops.net_forward(x.flatten(1), net, backend="cpp")
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-10)


def backends_know(net):
    from vaefast.ops._cpp import ACTIVATIONS

    return all(name.split(":")[0] in ACTIVATIONS for name in net.activations)


class Encoding(nn.Module):
    """An encoder whose heads are returned in a style of its own."""

    def __init__(self, returned):
        super().__init__()
        self.trunk, self.mean, self.logvar = nn.Linear(12, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.up, self.returned = nn.Linear(3, 12), returned

    def encode(self, x):
        h = torch.tanh(self.trunk(x.flatten(1)))
        return self.returned(self.mean(h), self.logvar(h))

    def decode(self, z):
        return self.up(z)


def normal(mean, logvar):
    return distributions.Normal(mean, torch.exp(0.5 * logvar))


RETURNED = {
    "sample first": lambda m, v: (m + torch.exp(0.5 * v) * torch.randn_like(m), m, v),
    "rsample first": lambda m, v: (normal(m, v).rsample(), m, v),
    "normal": normal,
    "independent normal": lambda m, v: distributions.Independent(normal(m, v), 1),
}


@pytest.mark.parametrize("name", RETURNED)
def test_samples_and_distributions_do_not_keep_the_heads_from_lowering(name):
    torch.manual_seed(0)
    vae = vf.as_vae(Encoding(RETURNED[name]).double().eval())
    x = torch.rand(4, 3, 4, dtype=torch.float64)
    validates, numbers = distributions.Distribution._validate_args, torch.get_rng_state()
    found = lowering.encoder(vae, x)
    assert distributions.Distribution._validate_args == validates
    assert torch.equal(numbers, torch.get_rng_state())
    assert found.why_not == ""
    for net, out in zip((found.mean, found.logvar), vae.encode(x)):
        assert net.layers == ["linear tanh", "linear identity"]
        torch.testing.assert_close(evaluate(x.flatten(1), net), out)


def test_a_head_that_is_sampled_is_refused_alone():
    vae = vf.as_vae(Encoding(lambda m, v: (m + torch.randn_like(m), v)).eval())
    found = lowering.encoder(vae, torch.rand(4, 3, 4))
    assert found.mean is None
    assert found.logvar is not None
    assert found.why_not == (
        "Encoding.encode draws random numbers (aten.randn_like.default); the forward samples; "
        "return mean and logvar"
    )

"""Modules that are no network: the reason names the operation and the layer."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import vaefast as vf
from vaefast.models import CannotLower, MaxMin

IMAGE, FLAT = (2, 8, 8), (12,)


class Of(nn.Module):
    """A module from parts and a forward in Python code."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.code = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.code(self, x)


def mlp(*tail, out=10):
    return nn.Sequential(nn.Linear(12, out), *tail)


def one(forward):
    return lambda: Of(forward, a=nn.Linear(12, 4), b=nn.Linear(12, 4))


def wide(forward):
    return lambda: Of(forward, a=nn.Linear(12, 600))


def sequence(part):
    return nn.Sequential(nn.Unflatten(1, (3, 4)), part)


REFUSED = {
    "layer norm": (
        lambda: mlp(nn.LayerNorm(10)),
        FLAT,
        r"'1' \(LayerNorm\) has no fused form .*native_layer_norm",
    ),
    "group norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)),
        IMAGE,
        r"'1' \(GroupNorm\) has no fused form .*native_group_norm",
    ),
    "batch norm in training": (
        lambda: mlp(nn.BatchNorm1d(10)).train(),
        FLAT,
        r"'1' \(BatchNorm1d\) writes to a parameter or buffer .*call model.eval\(\)",
    ),
    "statistics of the batch": (
        lambda: mlp(nn.BatchNorm1d(10, track_running_stats=False)),
        FLAT,
        r"'1' \(BatchNorm1d\) normalises by the statistics of the batch",
    ),
    "dropout in training": (
        lambda: mlp(nn.Dropout()).train(),
        FLAT,
        r"'1' \(Dropout\) draws random numbers .*call model.eval\(\)",
    ),
    "spectral norm in training": (
        lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(12, 4))).train(),
        FLAT,
        r"\(_SpectralNorm\) writes to a parameter or buffer",
    ),
    "attention": (
        lambda: sequence(
            Of(lambda m, x: m.a(x, x, x)[0], a=nn.MultiheadAttention(4, 2, batch_first=True))
        ),
        FLAT,
        r"'1\.a' \(MultiheadAttention\)",
    ),
    "recurrent": (
        lambda: sequence(Of(lambda m, x: m.a(x)[0], a=nn.LSTM(4, 2))),
        FLAT,
        r"\(LSTM\)",
    ),
    "softmax": (lambda: mlp(nn.Softmax(1)), FLAT, r"'1' \(Softmax\) has no fused form .*_softmax"),
    "max pooling": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.MaxPool2d(2)),
        IMAGE,
        r"'1' \(MaxPool2d\) has no fused form .*max_pool2d",
    ),
    "slope per channel": (
        lambda: mlp(nn.PReLU(10)),
        FLAT,
        r"'1' \(PReLU\) has a slope per channel",
    ),
    "low threshold": (
        lambda: mlp(nn.Softplus(threshold=1)),
        FLAT,
        r"'1' \(Softplus\) is the identity above 1",
    ),
    "log": (
        lambda: mlp(nn.Softplus(), Of(lambda m, h: torch.log(h))),
        FLAT,
        r"'2' \(Of\) is the logarithm of what is no exponential",
    ),
    "gate": (
        one(lambda m, x: m.a(x) * torch.sigmoid(m.b(x))),
        FLAT,
        "Of multiplies two values that depend on the input",
    ),
    "random": (
        one(lambda m, x: m.a(x) + torch.randn(2, 4)),
        FLAT,
        r"Of draws random numbers \(aten.randn.*; the forward samples; return mean and logvar$",
    ),
    "functional dropout in training": (
        lambda: Of(lambda m, x: F.dropout(m.a(x), 0.5, m.training), a=nn.Linear(12, 4)).train(),
        FLAT,
        r"Of draws random numbers .*; the forward samples; .*, or call model.eval\(\)$",
    ),
    "random branch": (
        one(lambda m, x: m.a(x) if torch.rand(1) < 0.5 else m.b(x)),
        FLAT,
        "Of draws random numbers",
    ),
    "control flow": (
        one(lambda m, x: m.a(x) if x.sum() > 0 else m.b(x)),
        FLAT,
        "reads a value that depends on the input",
    ),
    "across rows": (
        one(lambda m, x: m.a(x - x.mean(0))),
        FLAT,
        "averages over axes that are not the pixels",
    ),
    "moved rows": (one(lambda m, x: m.a(x.flip(0))), FLAT, "moves or mixes the rows"),
    "last axis": (
        lambda: nn.Sequential(nn.Linear(4, 3)),
        (3, 4),
        r"'0' \(Linear\) moves or mixes the rows of the batch",
    ),
    "detach": (
        one(lambda m, x: m.a(x.detach())),
        FLAT,
        "cuts the value out of the autograd graph",
    ),
    "constant": (one(lambda m, x: torch.ones(len(x), 3)), FLAT, "does not depend on the input"),
    "nothing": (lambda: nn.Flatten(), (3, 4), "there is no layer between input and output"),
    "wide selection": (
        wide(lambda m, x: m.a(x).relu().flip(1).tanh()),
        FLAT,
        "needs a permutation or selection of 600 features",
    ),
    "odd pairs": (
        lambda: nn.Sequential(nn.Linear(12, 5), MaxMin()),
        FLAT,
        "MaxMin pairs its features",
    ),
    "branch": (
        one(lambda m, x: torch.relu(m.a(x)) + m.b(x)),
        FLAT,
        "adds a branch with layers of its own",
    ),
    "two results": (
        one(lambda m, x: (m.a(x), m.b(x))),
        FLAT,
        r"^Of returns 2 tensors, a network one; take one of them: "
        r"vaefast.lower\(lambda x: model\(x\)\[0\], x\)$",
    ),
    "two results, one refused": (
        one(lambda m, x: (m.a(x), m.b(x).softmax(1))),
        FLAT,
        r"^Of returns 2 tensors, .*; \[1\]: Of has no fused form \(aten._softmax",
    ),
    "no tensor": (one(lambda m, x: None), FLAT, "^Of returns no tensor, a network one"),
    "raises": (lambda: nn.Linear(5, 2), FLAT, "Linear raises RuntimeError: "),
}


def fresh(rows, event, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(rows, *event, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", REFUSED)
def test_the_reason_says_what_and_where_and_nothing_changed(name):
    torch.manual_seed(0)
    maker, event, reason = REFUSED[name]
    module = maker().double()
    if "training" not in name:
        module.eval()
    state = {key: t.clone() for key, t in module.state_dict().items()}
    numbers = torch.get_rng_state()
    with pytest.raises(CannotLower, match=reason) as caught:
        vf.lower(module, fresh(4, event))
    assert caught.value.reason == str(caught.value)
    assert torch.equal(numbers, torch.get_rng_state())
    assert all(torch.equal(t, module.state_dict()[key]) for key, t in state.items())


def test_weights_that_are_no_plain_tensors():
    with pytest.raises(CannotLower, match=r"'0\.weight' is no plain tensor: Uninitialized"):
        vf.lower(nn.Sequential(nn.LazyLinear(3)), torch.rand(2, 12))
    linear = nn.Linear(12, 4)
    linear.weight = nn.Parameter(linear.weight.detach().to_sparse_csr(), requires_grad=False)
    with pytest.raises(CannotLower, match=r"'weight' is no plain tensor: Parameter.*sparse_csr"):
        vf.lower(linear, torch.rand(2, 12))


def test_an_example_must_be_floating():
    with pytest.raises((CannotLower, TypeError), match="floating"):
        vf.lower(nn.Linear(12, 4), torch.ones(2, 12, dtype=torch.int64))


class WithScript(nn.Module):
    def __init__(self, made):
        super().__init__()
        self.q = made(nn.Sequential(nn.Linear(12, 8), nn.ReLU()))
        self.mean, self.logvar = nn.Linear(8, 3), nn.Linear(8, 3)
        self.up = nn.Sequential(made(nn.Linear(3, 12)), nn.Sigmoid())

    def encode(self, x):
        h = self.q(x.flatten(1))
        return self.mean(h), self.logvar(h)

    def decode(self, z):
        return self.up(z)


def by_trace(module):
    width = next(module.parameters()).shape[1]
    return torch.jit.trace(module, torch.rand(2, width))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("made", [torch.jit.script, by_trace])
def test_torchscript_is_evaluated_as_the_module(made):
    torch.manual_seed(0)
    module = WithScript(made).eval()
    vae, x = vf.as_vae(module, decoder_output="probabilities"), torch.rand(3, 3, 4)
    found = vf.explain(vae, x)
    assert not found.encoder_mean.fused
    assert "layer 'q' (" in found.encoder_mean.detail
    assert found.encoder_mean.detail.endswith("Module) is TorchScript")
    chains = vf.hmc.sample(vae, x, steps=2, warmup=2, leapfrog=2)
    assert chains.z.isfinite().all()
    jacobian = torch.autograd.functional.jacobian(lambda t: module.encode(t)[0].sum(0), x)
    expected = jacobian.flatten(2).norm(dim=(0, 2))
    torch.testing.assert_close(vf.geometry.frobenius_norm(vae, x).float(), expected)
    with pytest.raises(CannotLower, match=r"^\w+Module is TorchScript$"):
        vf.lower(module.q, x.flatten(1))


def test_the_way_out_names_the_method():
    class Encoder(nn.Linear):
        def encode(self, x):
            return self(x), self(x)

    with pytest.raises(CannotLower, match=r"^Encoder\.encode returns 2 .* model\.encode\(x\)\[0\]"):
        vf.lower(Encoder(12, 4).encode, torch.rand(2, 12))


def test_what_cannot_be_called():
    with pytest.raises(TypeError, match=r"^module_or_function must be callable, got int$"):
        vf.lower(3, torch.rand(2, 12))

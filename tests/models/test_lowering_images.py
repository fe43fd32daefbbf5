"""Convolutional modules that people write: the network is the module."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vaefast as vf
from vaefast.functional.network import evaluate
from vaefast.models.rules import RULES

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


def encoder(m, x):
    h = F.relu(m.c1(x))
    h = F.leaky_relu(m.bn(m.c2(h)), 0.2)
    return m.out(h.flatten(1))


def resnet(m, x):
    h = m.c1(x)
    h = h + m.c3(F.relu(m.c2(F.relu(h))))
    return m.out(F.relu(h).mean((2, 3)))


def read_as_an_image(m, z):
    """A block with its relu first, over a linear layer read as an image, and a squashed end."""
    h = m.c0(z).reshape(len(z), 4, 2, 2)
    h = h + m.c2(F.relu(m.c1(F.relu(h))))
    h = h + m.c4(F.relu(m.c3(F.relu(h))))
    return {"reconstruction": torch.sigmoid(m.up(h))}["reconstruction"]


def flat_preactivation(m, x):
    h = m.a(x)
    return m.c(h + m.b(F.relu(h)))


def bn2(n):
    layer = nn.BatchNorm2d(n)
    with torch.no_grad():
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2.0)
        layer.weight.uniform_(-2.0, 2.0)
        layer.bias.normal_()
    return layer


def images(*layers):
    return lambda: nn.Sequential(*[layer() for layer in layers])


def conv(*args, **options):
    return lambda: nn.Conv2d(*args, **options)


LOWERED = {
    "encoder": (
        lambda: Of(
            encoder,
            c1=nn.Conv2d(2, 4, 4, stride=2, padding=1),
            c2=nn.Conv2d(4, 8, 3, padding=1, bias=False),
            bn=bn2(8),
            out=nn.Linear(128, 5),
        ),
        IMAGE,
    ),
    "decoder": (
        lambda: nn.Sequential(
            nn.Linear(12, 64),
            nn.ReLU(),
            nn.Unflatten(1, (4, 4, 4)),
            nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1),
            bn2(6),
            nn.ReLU(),
            nn.ConvTranspose2d(6, 1, 3, stride=2, padding=1, output_padding=1),
            nn.Sigmoid(),
        ),
        FLAT,
    ),
    "groups and dilation": (
        images(conv(2, 4, 3, padding=2, dilation=2, groups=2), nn.SiLU, conv(4, 3, 1)),
        IMAGE,
    ),
    "transposed, groups": (
        images(lambda: nn.ConvTranspose2d(2, 4, 3, groups=2), lambda: bn2(4), nn.Tanh),
        IMAGE,
    ),
    "one axis": (
        lambda: nn.Sequential(nn.Conv1d(3, 4, 3, stride=2), nn.ReLU(), nn.ConvTranspose1d(4, 2, 2)),
        (3, 9),
    ),
    "batch norm before a padded convolution": (
        images(conv(2, 4, 3), nn.ReLU, lambda: bn2(4), conv(4, 2, 3, padding=1)),
        IMAGE,
    ),
    "batch norm before an unpadded convolution": (
        images(conv(2, 4, 3), nn.ReLU, lambda: bn2(4), conv(4, 2, 3)),
        IMAGE,
    ),
    "scale before a grouped convolution": (
        lambda: Of(lambda m, x: m.c(m.s * torch.relu(m.c(x))), c=nn.Conv2d(2, 2, 3, groups=2), s=3),
        IMAGE,
    ),
    "pixels from [0, 1] to [-1, 1]": (
        lambda: Of(lambda m, x: m.c(2 * x - 1), c=nn.Conv2d(2, 4, 3, padding=1)),
        IMAGE,
    ),
    "flat pixels from [0, 1] to [-1, 1]": (
        lambda: Of(
            lambda m, x: m.c((2 * x - 1).view(-1, 1, 3, 4)), c=nn.Conv2d(1, 4, 3, padding=1)
        ),
        FLAT,
    ),
    "average pooling": (
        images(conv(2, 4, 3, padding=1), nn.ReLU, lambda: nn.AvgPool2d(2), nn.Flatten),
        IMAGE,
    ),
    "adaptive pooling": (images(conv(2, 4, 3), lambda: nn.AdaptiveAvgPool2d(1)), IMAGE),
    "adaptive pooling to 4x4": (
        images(conv(2, 4, 3, padding=1), nn.ReLU, lambda: nn.AdaptiveAvgPool2d(4)),
        IMAGE,
    ),
    "upsampling": (
        images(conv(2, 4, 3), lambda: nn.Upsample(scale_factor=2), conv(4, 1, 3), nn.Sigmoid),
        IMAGE,
    ),
    "interpolate": (
        lambda: Of(lambda m, x: m.c(F.interpolate(x, scale_factor=3.0)), c=nn.Conv2d(2, 2, 3)),
        IMAGE,
    ),
    "residual block": (
        lambda: Of(
            resnet,
            c1=nn.Conv2d(2, 4, 3, padding=1),
            c2=nn.Conv2d(4, 6, 1),
            c3=nn.Conv2d(6, 4, 3, padding=1),
            out=nn.Linear(4, 3),
        ),
        IMAGE,
    ),
    "residual block over a linear layer read as an image": (
        lambda: Of(
            read_as_an_image,
            c0=nn.Linear(12, 16),
            c1=nn.Conv2d(4, 3, 3, padding=1),
            c2=nn.Conv2d(3, 4, 1),
            c3=nn.Conv2d(4, 3, 3, padding=1),
            c4=nn.Conv2d(3, 4, 1),
            up=nn.ConvTranspose2d(4, 2, 4, 2, padding=1),
        ),
        FLAT,
    ),
    "wide residual block with its activation first": (
        lambda: Of(
            flat_preactivation,
            a=nn.Linear(12, 520),
            b=nn.Linear(520, 520),
            c=nn.Linear(520, 3),
        ),
        FLAT,
    ),
    "wide layer activated twice": (
        lambda: nn.Sequential(nn.Linear(12, 600), nn.ReLU(), nn.Tanh()),
        FLAT,
    ),
    "two activations": (images(conv(2, 3, 3), nn.ReLU, nn.Tanh), IMAGE),
    "channels last into a linear layer": (
        lambda: Of(
            lambda m, x: m.a(m.c(x).permute(0, 2, 3, 1).flatten(1)),
            c=nn.Conv2d(2, 3, 3),
            a=nn.Linear(108, 4),
        ),
        IMAGE,
    ),
}


def fresh(rows, event, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(rows, *event, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", LOWERED)
def test_the_network_is_the_module(name):
    torch.manual_seed(0)
    maker, event = LOWERED[name]
    module = maker().double().eval()
    net = vf.lower(module, fresh(4, event))
    x = fresh(7, event, seed=2)
    expected = module(x).flatten(1)
    torch.testing.assert_close(evaluate(x.flatten(1), net), expected, rtol=1e-11, atol=1e-12)
    assert (net.in_features, net.out_features) == (x[0].numel(), expected.shape[1])


@pytest.mark.parametrize("name", LOWERED)
def test_the_ops_compute_the_module(name):
    torch.manual_seed(0)
    maker, event = LOWERED[name]
    module = maker().double().eval()
    x = fresh(5, event, seed=3).requires_grad_()
    expected = module(x).flatten(1)
    net = vf.lower(module, fresh(4, event))
    made = vf.ops.net_forward(x.detach().flatten(1), net)
    torch.testing.assert_close(made, expected.detach(), rtol=1e-11, atol=1e-12)
    probe = fresh(5, expected.shape[1:], seed=4)
    (slope,) = torch.autograd.grad(expected, x, probe)
    back = vf.ops.net_vjp(x.detach().flatten(1), probe.unsqueeze(1), net, full=True)[-1][:, 0]
    torch.testing.assert_close(back, slope.flatten(1), rtol=1e-10, atol=1e-11)


def test_the_texts_of_the_layers():
    torch.manual_seed(0)
    maker, event = LOWERED["decoder"]
    net = vf.lower(maker().double().eval(), fresh(2, event))
    assert net.layers == [
        "linear relu",
        "conv_transpose in=4x4x4 stride=2x2 padding=1x1 dilation=1x1 output_padding=0x0 groups=1"
        " relu",
        "conv_transpose in=6x8x8 stride=2x2 padding=1x1 dilation=1x1 output_padding=1x1 groups=1"
        " sigmoid",
    ]
    maker, event = LOWERED["residual block"]
    words = [layer.split() for layer in vf.lower(maker().double(), fresh(2, event)).layers]
    assert next((w[0], w[-1]) for w in words if w[0] == "avg_pool") == ("avg_pool", "relu")
    assert [w[-2] for w in words if w[-2].startswith("+")] == ["+0"]


def test_a_trace_wrong_by_one_pixel_fails_the_comparison(monkeypatch):
    """A rule on purpose wrong: the convolution's output moves by a pixel."""
    convolution = RULES["convolution"]

    def wrong(*args):
        right = convolution(*args)
        return dataclasses.replace(right, index=right.index.roll(1, -1))

    module, x = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU()), torch.rand(2, 1, 6, 6)
    assert len(vf.lower(module, x).layers) == 1
    monkeypatch.setitem(RULES, "convolution", wrong)
    with pytest.raises(vf.CannotLower, match="differs from its trace"):
        vf.lower(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU()), x)

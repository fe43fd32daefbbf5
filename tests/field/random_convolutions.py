"""Small convolutional encoders and decoders from what people use, in one and two dimensions."""

import torch
import torch.nn.functional as F
from torch import nn

EVENTS = ((1, 5, 5), (2, 4, 6), (3, 1, 4), (2, 7), (1, 9))
KINDS = ("plain", "strided", "grouped", "dilated", "pooled", "residual", "preactivated", "doubled")


def of_axes(name, axes):
    """A layer's class in one or two dimensions: ``of_axes("Conv", 1)`` is ``nn.Conv1d``."""
    return getattr(nn, f"{name}{axes}d")


def act(pick):
    return pick.choice((nn.ReLU, nn.SiLU, nn.Tanh, nn.ELU, lambda: nn.LeakyReLU(0.3), nn.GELU))()


class Residual(nn.Module):
    """h + f(h), where ``first``: with the activation before its convolutions."""

    def __init__(self, pick, channels, axes, first):
        super().__init__()
        conv, inner = of_axes("Conv", axes), pick.choice((2, 3))
        self.a, self.b = conv(channels, inner, 3, padding=1), conv(inner, channels, 1)
        self.norm = of_axes("BatchNorm", axes)(inner) if pick.random() < 0.5 else nn.Identity()
        self.act, self.first = act(pick), first

    def forward(self, h):
        new = self.b(self.act(self.norm(self.a(F.relu(h) if self.first else h))))
        return h + new if self.first else F.relu(h + new)


def block(pick, kind, channels, axes):
    """One block of layers and the channels after it."""
    conv, out = of_axes("Conv", axes), pick.choice((2, 3, 4))
    if kind in ("residual", "preactivated"):
        return Residual(pick, channels, axes, kind == "preactivated"), channels
    if kind == "pooled":
        return of_axes("AvgPool", axes)(2, 2, ceil_mode=False, padding=1), channels
    if kind == "doubled":
        return nn.Upsample(scale_factor=2, mode="nearest"), channels
    options = {
        "plain": {"padding": 1},
        "strided": {"padding": 1, "stride": 2},
        "grouped": {"padding": 1, "groups": channels},
        "dilated": {"padding": 2, "dilation": 2},
    }[kind]
    out = channels * pick.choice((1, 2)) if kind == "grouped" else out
    norm = of_axes("BatchNorm", axes)(out) if pick.random() < 0.4 else nn.Identity()
    order = [norm, act(pick)] if pick.random() < 0.7 else [act(pick), norm]
    bias = pick.random() < 0.7
    return nn.Sequential(conv(channels, out, 3, bias=bias, **options), *order), out


def encoder(pick, event):
    """Blocks on an image or a signal, and the shape [C, ...] of what they give."""
    axes, channels, layers = len(event) - 1, event[0], []
    for _ in range(pick.choice((1, 2, 3))):
        layer, channels = block(pick, pick.choice(KINDS), channels, axes)
        layers.append(layer)
    body = nn.Sequential(*layers).eval()
    with torch.no_grad():
        return body, tuple(body(torch.zeros(1, *event)).shape[1:])


def head(pick, shape, latents):
    """Features [n, C, ...] to [n, latents]: a linear layer, or a convolution as large as they."""
    if pick.random() < 0.6:
        return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), latents))
    conv = of_axes("Conv", len(shape) - 1)
    return nn.Sequential(conv(shape[0], latents, shape[1:]), nn.Flatten())


class Decoder(nn.Module):
    """A linear layer read as an image, blocks that grow, and an end that gives the event."""

    def __init__(self, pick, latents, event):
        super().__init__()
        axes, (channels, *sizes) = len(event) - 1, event
        width, size = pick.choice((2, 3)), [max(1, n // 3) for n in sizes]
        self.shape, layers = (width, *size), []
        self.start = nn.Linear(latents, torch.Size(self.shape).numel())
        self.relu = pick.random() < 0.5
        transposed = of_axes("ConvTranspose", axes)
        while all(2 * n <= full for n, full in zip(size, sizes)) and pick.random() < 0.8:
            kind = pick.choice(("transposed", "odd", "doubled"))
            size, out = [2 * n for n in size], pick.choice((2, 3))
            if kind == "doubled":
                layer, out = block(pick, "doubled", width, axes)
            elif kind == "odd":
                layer = transposed(width, out, 3, stride=2, padding=1, output_padding=1)
            else:
                layer = transposed(width, out, 4, stride=2, padding=1)
            layers += [layer, act(pick)] if kind != "doubled" else [layer]
            width = out
        kind = pick.choice(("plain", "residual", "preactivated", "dilated"))
        layer, width = block(pick, kind, width, axes)
        kernel = [full - n + 1 for n, full in zip(size, sizes)]
        last = transposed(width, channels, kernel)
        if pick.random() < 0.3:
            last = head(pick, (width, *size), torch.Size(event).numel())
        self.layers = nn.Sequential(*layers, layer, last)

    def forward(self, z):
        h = self.start(z)
        return self.layers((F.relu(h) if self.relu else h).reshape(len(z), *self.shape))

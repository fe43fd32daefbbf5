"""Small models from the layers and spellings that people use, one for each seed."""

import random
from itertools import pairwise

import torch
import torch.nn.functional as F
from random_convolutions import EVENTS as PIXELS
from random_convolutions import Decoder, encoder, head
from torch import nn

import vaefast as vf

EVENTS = ((6,), (1, 2, 3), (2, 4))
ACTIVATIONS = {  # as modules and as functions
    "relu": (nn.ReLU, lambda h: F.relu(h)),
    "tanh": (nn.Tanh, torch.tanh),
    "sigmoid": (nn.Sigmoid, lambda h: h.sigmoid()),
    "silu": (nn.SiLU, lambda h: h * torch.sigmoid(h)),
    "gelu": (nn.GELU, lambda h: F.gelu(h, approximate="tanh")),
    "elu": (lambda: nn.ELU(0.7), lambda h: F.elu(h)),
    "leaky": (lambda: nn.LeakyReLU(0.1), lambda h: F.leaky_relu(h, 0.3)),
    "softplus": (nn.Softplus, lambda h: F.softplus(h, beta=2)),
    "clamped": (nn.Hardtanh, lambda h: h.clamp(-0.5, 0.8)),
    "mish": (nn.Mish, lambda h: F.mish(h)),
    "prelu": (nn.PReLU, lambda h: torch.where(h > 0, h, 0.2 * h)),
    "sine": (nn.Tanhshrink, torch.sin),
}
NORMS = (nn.Identity, nn.BatchNorm1d, nn.Dropout, nn.LayerNorm)
FLATTENED = (
    lambda x: x.flatten(1),
    lambda x: x.view(len(x), -1),
    lambda x: x.reshape(x.shape[0], x[0].numel()),
)
SCALES = {
    "logvar": (lambda v: v, lambda v: v.clamp(-0.3, 0.4), lambda v: F.softplus(v) - 1.0),
    "std": (lambda v: F.softplus(v) + 0.1, torch.exp),
    "var": (torch.exp, lambda v: F.softplus(v) + 0.1),
}
ENDS = (nn.Sigmoid(), torch.sigmoid, F.sigmoid, lambda h: h.sigmoid())


class Stack(nn.Module):
    """Linear layers with activations and norms between them, some with a residual sum."""

    def __init__(self, pick, widths):
        super().__init__()
        sizes = list(pairwise(widths))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in sizes)
        self.norms = nn.ModuleList()
        for _, width in sizes:
            norm = pick.choice(NORMS)
            takes = norm in (nn.BatchNorm1d, nn.LayerNorm)
            self.norms.append(norm(width) if takes else norm())
        self.acts, self.residual = nn.ModuleList(), [pick.random() < 0.3 for _ in sizes]
        self.functions = []
        for _ in sizes:
            module, function = ACTIVATIONS[pick.choice(list(ACTIVATIONS))]
            self.functions.append(function if pick.random() < 0.5 else None)
            self.acts.append(nn.Identity() if self.functions[-1] else module())

    def forward(self, h):
        parts = zip(self.layers, self.norms, self.acts, self.functions, self.residual)
        for layer, norm, act, function, residual in parts:
            new = norm(layer(h))
            new = new + h if residual and new.shape == h.shape else new
            h = F.dropout(function(new) if function else act(new), 0.2, self.training)
        return h


class Model(nn.Module):
    def __init__(self, seed):
        super().__init__()
        pick = random.Random(seed)
        self.event, self.latents = pick.choice(EVENTS), pick.choice((1, 2, 3))
        self.flat, self.way = (
            pick.choice(FLATTENED),
            pick.choice(("two", "chunk", "unbind", "dict")),
        )
        pixels, hidden = torch.Size(self.event).numel(), pick.choice((4, 5, 8))
        self.body = Stack(pick, [pixels, *[hidden] * pick.choice((1, 2, 3))])
        heads = (1, 2 * self.latents) if self.way in ("chunk", "unbind") else (2, self.latents)
        self.heads = nn.ModuleList(nn.Linear(hidden, heads[1]) for _ in range(heads[0]))
        self.output = pick.choice(list(SCALES))
        self.scale = pick.choice(SCALES[self.output])
        self.up = Stack(pick, [self.latents, hidden])
        self.last = nn.Linear(hidden, pixels)
        self.likelihood = pick.choice(("bernoulli", "gaussian"))
        self.end = pick.choice((None, *ENDS)) if self.likelihood == "bernoulli" else None

    def in_pixels(self, pick):
        """Convolutional encoder and decoder in place of the linear ones; the model itself."""
        self.event, self.flat = pick.choice(PIXELS), nn.Identity()
        self.body, shape = encoder(pick, self.event)
        one = self.way in ("chunk", "unbind")
        width = 2 * self.latents if one else self.latents
        self.heads = nn.ModuleList(head(pick, shape, width) for _ in range(1 if one else 2))
        self.up, self.last = Decoder(pick, self.latents, self.event), nn.Identity()
        return self

    def encode(self, x):
        h = self.body(self.flat(x))
        if self.way == "chunk":
            mean, raw = self.heads[0](h).chunk(2, dim=1)
        elif self.way == "unbind":
            mean, raw = self.heads[0](h).view(-1, self.latents, 2).unbind(-1)
        else:
            mean, raw = (head(h) for head in self.heads)
        scale = self.scale(raw)
        if self.way == "dict":
            return {"mean": mean, {"std": "std", "var": "var"}.get(self.output, "logvar"): scale}
        return mean, scale

    def decode(self, z):
        out = self.last(self.up(z)).view(-1, *self.event)
        return out if self.end is None else self.end(out)

    def posterior(self, x):
        """Mean and standard deviation, by nothing but the module."""
        result = self.encode(x)
        mean, scale = result.values() if isinstance(result, dict) else result
        to_std = {"logvar": lambda v: torch.exp(0.5 * v), "std": lambda v: v, "var": torch.sqrt}
        return mean, to_std[self.output](scale)

    def pixels(self, z):
        """The reconstruction, flat, in pixel scale."""
        out = self.decode(z).flatten(1)
        return out.sigmoid() if self.likelihood == "bernoulli" and self.end is None else out


def made(seed):
    """The model in float64 and evaluation mode, and as a VAE; every third is convolutional."""
    torch.manual_seed(seed)
    model = Model(seed)
    if seed % 3 == 2:
        model = model.in_pixels(random.Random(seed))
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    natural = "logits" if model.likelihood == "bernoulli" else None
    vae = vf.as_vae(
        model,
        event_shape=model.event,
        likelihood=model.likelihood,
        encoder_output=model.output,
        decoder_output="probabilities" if model.end else natural,
    )
    return model, vae

"""Two heads on one trunk run as one network where their last layers stack, else as two."""

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.models.prepare import prepare

HEADS = {  # a module on 8 channels of 4 by 4
    "convolutions": lambda: nn.Conv2d(8, 4, 4),
    "transposed": lambda: nn.ConvTranspose2d(8, 2, 4),
    "grouped": lambda: nn.Conv2d(8, 4, 4, groups=2),
    "after pooling": lambda: nn.Sequential(nn.Conv2d(8, 2, 1), nn.AvgPool2d(2)),
}


class Heads(nn.Module):
    def __init__(self, make, residual):
        super().__init__()
        self.trunk, self.residual = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU()), residual
        self.mean, self.logvar = make(), make()
        width = self.mean(torch.zeros(1, 8, 4, 4)).numel()
        self.decoder = nn.Linear(width, 64)

    def encode(self, x):
        h = self.trunk(x)
        found = (head(h) + (h if self.residual else 0) for head in (self.mean, self.logvar))
        return tuple(head.flatten(1) for head in found)

    def decode(self, z):
        return self.decoder(z).view(-1, 1, 8, 8)


@pytest.mark.parametrize("name", [*HEADS, "residual sums"])
def test_both_heads_are_the_module_s(name):
    torch.manual_seed(0)
    make = HEADS.get(name, lambda: nn.Conv2d(8, 8, 3, padding=1))
    module = Heads(make, residual=name == "residual sums").double().eval()
    vae, x = vf.as_vae(module), torch.rand(5, 1, 8, 8).double()
    maps = prepare(vae, x).maps
    assert maps.generic("encoder") != bool(vf.supports("net_forward", "cpp"))
    with torch.no_grad():
        for found, expected in zip(maps.encode(x), module.encode(x), strict=True):
            torch.testing.assert_close(found, expected)
    result = vf.attacks.latent(vae, x, eps=0.1, steps=2, restarts=1)
    assert not result.failed.any()


class Residual(nn.Module):
    """A residual block on both sides: what a layer adds moves when networks are chained."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 3, 3, 2, 1), nn.Conv2d(3, 3, 3, padding=1)
        self.heads, self.up = nn.Linear(48, 6), nn.Linear(3, 48)
        self.third, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.ConvTranspose2d(3, 1, 4, 2, 1)

    def encode(self, x):
        h = torch.tanh(self.first(x))
        h = torch.tanh(self.second(h) + h)
        return self.heads(h.flatten(1)).chunk(2, dim=1)

    def decode(self, z):
        h = self.up(z).view(-1, 3, 4, 4)
        return self.last(torch.tanh(self.third(torch.tanh(h)) + h))


def test_residual_sums_keep_their_layers_where_networks_are_chained():
    torch.manual_seed(1)
    module = Residual().double().eval()
    vae, x = vf.as_vae(module), torch.rand(4, 1, 8, 8).double()
    found = prepare(vae, x).maps.reconstruction.value(x.flatten(1))
    with torch.no_grad():
        expected = torch.sigmoid(module.decode(module.encode(x)[0])).flatten(1)
    torch.testing.assert_close(found, expected)
    norm = vf.geometry.frobenius_norm(vae, x, of="reconstruction")

    def g(row):
        return torch.sigmoid(module.decode(module.encode(row[None])[0])).flatten()

    J = torch.stack([torch.func.jacrev(g)(row).flatten(1) for row in x])
    torch.testing.assert_close(norm, torch.linalg.matrix_norm(J).double())

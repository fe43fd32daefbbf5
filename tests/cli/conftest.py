"""An empty folder, one command line at a time, and small models to run it on."""

import textwrap

import numpy as np
import pytest

from vaefast import models

MODULE = """
    import torch
    from torch import nn

    class Plain(nn.Module):
        def __init__(self, *extra):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), *extra)
            self.mean, self.logvar, self.back = nn.Linear(8, 2), nn.Linear(8, 2), nn.Linear(2, 64)

        def encode(self, x):
            h = self.body(x)
            return self.mean(h), self.logvar(h)

        def decode(self, z):
            return self.back(z).view(-1, 1, 8, 8)

    def make_vae():
        torch.manual_seed(0)
        return Plain()

    def in_double():
        return Plain().double()

    def broken():
        model = Plain()
        del model.back
        return model

    def dropping():
        return Plain(nn.Dropout())

    def failing():
        raise KeyError("weights")

    class Probabilities(Plain):
        def decode(self, z):
            return torch.sigmoid(super().decode(z))

    class EndsInSigmoid(Plain):
        def __init__(self):
            super().__init__()
            self.back = nn.Sequential(self.back, nn.Sigmoid())

    def a_number():
        return 3

    constant = 3
"""


@pytest.fixture(autouse=True)
def in_a_folder(here):
    """Every command works in an empty folder."""


@pytest.fixture
def module(here):
    name = f"mine_{abs(hash(here)) % 10**8}"  # imports are cached by name
    (here / f"{name}.py").write_text(textwrap.dedent(MODULE))
    return name


@pytest.fixture
def gaussian(here):
    vae = models.MLPVAE((1, 8, 8), (8,), 2, likelihood="gaussian", obs_std=0.3)
    models.save(vae, here / "g.safetensors")
    return "g.safetensors"


@pytest.fixture
def save_images(here):
    """Write an image file and return its name."""

    def write(name, *, shape=(12, 8, 8), dtype="uint8", spoil=False):
        x = np.random.default_rng(0).integers(0, 256, shape)
        x = x.astype(dtype) if dtype == "uint8" else (x / 255).astype(dtype)
        if spoil:
            x.flat[5] = np.nan
        np.save(name, x)
        return name

    return write

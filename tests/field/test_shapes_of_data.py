"""Data of another shape than the model's: the message spoke of a probe's shape. It names the shapes
of both, and the reshape that brings them together.
"""

import numpy as np
import pytest

from vaefast import models

X = np.random.default_rng(0).random((6, 1, 8, 8)).astype(np.float32)
SHORT = ["--inputs", 2, "--threads", 1, "--steps", 1, "--restarts", 1, "--out", "o.npz"]

MODULE = """
import torch
from torch import nn
class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.e, self.d = nn.Linear(64, 4), nn.Linear(2, 64)
    def encode(self, x):
        return self.e(x).chunk(2, 1)
    def decode(self, z):
        return self.d(z)
"""

CASES = {  # what the file holds, the model's shape, and the words
    "flat rows": (X.reshape(6, 64), (1, 8, 8), "save x.reshape(-1, 1, 8, 8), or let the model of"),
    "images": (X, (64,), "save x.reshape(-1, 64), or let the model of make_vae begin with nn.Flat"),
    "another size": (X[..., :4, :4], (1, 8, 8), "has [1, 4, 4]\n"),
    "one image": (X[0, 0], (1, 8, 8), "has [8]; one image alone is saved as x[None]"),
    "transposed": (X.reshape(6, 1, 4, 16), (1, 8, 8), "save x.reshape(-1, 1, 8, 8)"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("command", ["attack", "audit"])
def test_both_shapes_and_the_way_from_one_to_the_other(refused, case, command):
    x, event, words = CASES[case]
    np.save("x.npy", x)
    models.save(models.MLPVAE(event, (8,), 2), "m.safetensors")
    line = refused(command, "--data", "x.npy", "--model", "m.safetensors", *SHORT[:-1], "o")
    assert f"--model m.safetensors takes inputs of shape {list(event)}, --data x.npy has " in line
    assert words in line


def test_an_image_without_channels_has_one(run, model):
    np.save("x.npy", X[:, 0])
    assert run("attack", "--data", "x.npy", "--model", model, *SHORT)[0] == 0
    assert np.load("o.npz")["x"].shape == (2, 1, 8, 8)


def test_a_module_whose_shape_nobody_knows(refused, here):
    """The data's shape is named, and the reshape with which the module runs."""
    (here / "mine.py").write_text(MODULE)
    np.save("x.npy", X)
    line = refused("attack", "--data", "x.npy", "--model", "mine.py:Flat", *SHORT)
    assert "does not work on inputs of shape [1, 8, 8] as --data x.npy has" in line
    assert "pass x.flatten(1)" in line

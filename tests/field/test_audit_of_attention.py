"""The audit of a model with attention, as Stable Diffusion's autoencoder has it, died after its
attacks: the fused attention of PyTorch has no second derivative. It runs to its end, and its
numbers are those of the same attention written out.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vaefast as vf
from vaefast.audit import AuditSettings, Stages
from vaefast.audit import run as audit
from vaefast.data import Dataset

SETTINGS = AuditSettings(
    inputs=2, eps=(0.1,), attack_steps=2, restarts=1, warmup=2, transitions=2, samples=20, r=1.0
)


def fused(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def written_out(q, k, v):
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v


class Block(nn.Module):
    """Attention over the places of an image, with group norm and a residual."""

    def __init__(self, channels, attention):
        super().__init__()
        self.norm, self.attention = nn.GroupNorm(2, channels), attention
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x):
        rows = self.norm(x).flatten(2).mT
        q, k, v = (t.unsqueeze(1) for t in self.qkv(rows).chunk(3, dim=-1))
        out = self.out(self.attention(q, k, v).squeeze(1)).mT
        return x + out.unflatten(2, x.shape[2:])


class Autoencoder(nn.Module):
    """Latents [n, 2, 4, 4] of images [n, 1, 8, 8]."""

    def __init__(self, attention):
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, 1), nn.SiLU(), Block(4, attention), nn.Conv2d(4, 4, 1)
        )
        self.up = nn.Sequential(
            nn.Conv2d(2, 4, 1),
            Block(4, attention),
            nn.SiLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(4, 1, 3, padding=1),
        )

    def encode(self, x):
        mean, logvar = self.down(x).chunk(2, dim=1)
        return mean, logvar - 3.0

    def decode(self, z):
        return self.up(z)


def audited(attention):
    vae = vf.as_vae(Autoencoder(attention).eval(), likelihood="gaussian", obs_std=0.5)
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    data = Dataset("made-up", x[:4], torch.arange(4) % 2, x[4:], torch.arange(4) % 2, "")
    with Stages() as stages:
        return audit(vae, data, SETTINGS, stages)


@pytest.fixture(scope="module")
def result():
    return audited(fused)


def test_it_runs_to_the_end(result):
    assert len(result.outcomes) == 2
    assert not result.values["failed"].any()
    for column in result.table():
        values = column.values.astype(float)
        finite = ~np.isnan(values) if column.name == "margin_empirical" else np.isfinite(values)
        assert finite.all(), column.name  # no break need be found: infinite


def test_its_numbers_are_those_of_attention_written_out(result):
    expected = {column.name: column.values for column in audited(written_out).table()}
    for column in result.table():
        if "objective" not in column.name:
            assert column.values == pytest.approx(expected[column.name], rel=0.05, abs=0.05), (
                column.name
            )


SOURCE = """
from test_source import Autoencoder, fused
def make_vae():
    return Autoencoder(fused).eval()
"""


def test_the_command_line_too(run, here):
    with open(__file__, encoding="utf-8") as file:
        (here / "test_source.py").write_text(file.read().split("def audited")[0])
    (here / "mine.py").write_text(SOURCE)
    words = ["audit", "--data", "digits", "--model", "mine.py:make_vae", "--out", "r"]
    words += ["--likelihood", "gaussian", "--obs-std", 0.5, "--inputs", 2, "--eps", 0.1]
    words += ["--steps", 2, "--restarts", 1, "--warmup", 2, "--transitions", 2, "--samples", 10]
    code, _, stderr = run(*words, "--threads", 1)
    assert code == 0, stderr
    assert (here / "r" / "report.html").is_file()

"""A margin of 0 looked like a fragile model where first order says nothing at all.

The result knows why each row abstains; a command line and a report say how many and why, in a line.
"""

import pandas as pd
import pytest

MODEL = """
import torch
import vaefast as vf
from torch import nn

def make():
    torch.manual_seed(0)
    v = vf.models.MLPVAE((1, 8, 8), (8,), 2)
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
    trunk[1].weight.data.abs_().mul_({sign})  # all units off at an image, or on
    heads = nn.Linear(8, 2), torch.full((2,), -2.0)
    return vf.VAE(trunk=trunk, encoder_mean=heads[0], encoder_logvar=heads[1], decoder=v.decoder,
                  event_shape=(1, 8, 8)).eval()
"""
CAUSE = "the Jacobian of the encoder's mean is 0, of which first order says nothing (4)"
SHORT = ["--data", "digits", "--inputs", 4, "--threads", 1, "--samples", 20]

HMC = ["--warmup", 2, "--transitions", 2, "--leapfrog", 2]


@pytest.fixture
def write(here):
    def write(sign):
        (here / "mine.py").write_text(MODEL.format(sign=sign))
        return ["--model", "mine.py:make"]

    return write


def test_certify_counts_the_reasons(run, write):
    code, stdout, _ = run("certify", *SHORT, *write(-1), "--r", 9, "--out", "o.parquet")
    assert code == 0
    assert f"4 of 4 inputs have no margin: {CAUSE}" in stdout
    assert pd.read_parquet("o.parquet")["margin_abstain"].all()


def test_certify_counts_rows_of_little_probability(run, write):
    code, stdout, _ = run("certify", *SHORT, *write(1), "--r", 1e-6, "--out", "o.parquet")
    assert code == 0
    assert "4 of 4 inputs have no margin: p_lower is at most 1/2 (4)" in stdout


def test_certify_says_nothing_where_all_have_one(run, write):
    code, stdout, _ = run("certify", *SHORT, *write(1), "--r", 9, "--out", "o.parquet")
    assert code == 0
    assert "no margin" not in stdout


def test_a_report_counts_the_reasons(run, write, here):
    words = [*SHORT, *write(-1), "--r", 9, "--steps", 1, "--restarts", 1, "--eps", 0.1, *HMC]
    code, _, stderr = run("audit", *words, "--out", "rep")
    assert code == 0, stderr
    for file in ("summary.json", "report.html"):
        text = (here / "rep" / file).read_text(encoding="utf-8").replace("&#39;", "'")
        assert f"4 of 4 inputs have no margin: {CAUSE}." in text, file

"""The script of docs/certificates.md: models, rows of every method, the table."""

from pathlib import Path

import pytest
import torch

import vaefast as vf
from vaefast.bench import certificates
from vaefast.bench import certificates_models as models
from vaefast.bench.rows import append

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench/results/certificates.csv"


@pytest.fixture
def x():
    return vf.data.load("digits").x_train[:80]


def test_every_method_is_measured_below_the_attack(x, tmp_path, monkeypatch):
    monkeypatch.setattr(certificates, "MANY", 3_000)
    vae = vf.models.MLPVAE((1, 8, 8), (12,), 3, fixed_std=0.5).eval()
    rows = list(certificates.measured("small", vae, x[:3], certificates.Inputs(3, 2, 1)))
    methods = ["whitened", "local, affine", "local", "local, auto", "local", "anchors", "best"]
    assert [row.method for row in rows] == methods
    assert [row.inputs for row in rows] == [3, 3, 3, 2, 2, 1, 1]
    for row in rows:
        assert row.margin > 0
        assert row.above_attack == 0
    append(tmp_path / "rows.csv", rows)
    page = certificates.table(tmp_path / "rows.csv")
    assert page.count("| small |") == len(rows)


@pytest.mark.parametrize("name", ["relu-256x2", "lipschitz"])
def test_models_are_trained_and_load(name, x, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "SMALL", (8, 8))
    (path,) = models.train(tmp_path, x, [name], epochs=1)
    vae = vf.models.load(path)
    std = vae.posterior(x[:2])[1]
    assert torch.equal(std[0], std[1]) == (name != "lipschitz")
    assert path.name == f"{name}.safetensors"


def test_names_are_checked(capsys):
    with pytest.raises(SystemExit):
        certificates.main(["--only", "nothing"])
    assert "--only takes adversarial, beta4" in capsys.readouterr().err


@pytest.mark.skipif(not RESULTS.exists(), reason="an installation has no results")
def test_the_page_has_the_table():
    page = (ROOT / "docs/certificates.md").read_text()
    assert certificates.table(RESULTS) in page

"""The command from end to end on small images, and what it is made of."""

import csv
from functools import partial
from importlib import import_module

import numpy as np
import pytest
import torch
from commands import reproduce

from vaefast import data
from vaefast.certify import margin, robust_probability
from vaefast.cli import main
from vaefast.reproduce.barrett2022.duration import measure
from vaefast.reproduce.barrett2022.inside import ATTACKS, attack_inside
from vaefast.reproduce.barrett2022.matching import next_beta
from vaefast.reproduce.barrett2022.models import untrained
from vaefast.reproduce.barrett2022.settings import Plan, Settings
from vaefast.reproduce.barrett2022.theorems import promise_anywhere, published_margins

SIZES = {
    "constants": "5,10",
    "std-norms": "0.2,0.4",
    "radii": "0.5",
    "train-inputs": 32,
    "epochs": 1,
    "batch-size": 32,
    "inputs": 2,
    "scored": 4,
    "samples": 10,
    "restarts": 2,
    "attack-steps": 1,
    "trainings": 1,
    "r": 2,
}
SMALL = Settings("digits", hidden=(16,), latent=4, inputs=3, scored=3, restarts=2, attack_steps=2)

words = partial(reproduce, "barrett2022", SIZES)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Two of the rivals, one length of the curve, one thread."""
    run = import_module("vaefast.reproduce.barrett2022.run")  # the package's name is a function
    monkeypatch.setattr(run, "RIVALS", ("elbo", "adversarial"))
    monkeypatch.setattr("vaefast.reproduce.barrett2022.measure.CURVE", 1)
    monkeypatch.setattr("vaefast.reproduce.barrett2022.duration.MORE", (4, 40))


def test_every_point_has_a_row_and_a_run_goes_on(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(words(out)) == 0
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert len(rows) == (2 + 2 + 1 + 1 + 2) * 2
    for row in rows:
        constants = row["group"] in ("constant", "std", "radius")
        assert (float(row["a"] or "nan") > 0) == constants
        for event in ("fixed", "two"):
            assert float(row[f"certified_{event}"]) <= float(row[f"attacked_{event}"])
        assert float(row["certified_two"]) >= float(row["theorem"]) >= float(row["published"])
        if row["group"] == "radius":
            assert float(row["certified_two"]) >= 0.5
            assert float(row["inside_fixed"]) > 0.5
    page, before = (out / "report.html").read_text(), (out / "results.csv").read_bytes()
    assert "http" not in page
    assert "Of the published claims" in page
    (out / "constant-5" / "measured.safetensors").unlink()
    capsys.readouterr()
    assert main(words(out)) == 0
    said = capsys.readouterr().out
    assert "train " not in said.split("Of the fixed centre")[0]
    assert said.count("measure ") == 1
    assert (out / "results.csv").read_bytes() == before
    for arguments, text in (
        (words(out, r=3), "r 2.0, this one has 3.0"),
        (words(tmp_path / "a", constants="5"), "--constants must be 2 or more"),
        (words(tmp_path / "b", inputs=1), "--inputs must be at least 2"),
        (words(tmp_path / "c", restarts=1), "--restarts must be at least 2"),
        (words(tmp_path / "d", radii="7"), "--radii must be at most 6"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert text in error, error


def test_the_full_size_is_estimated_from_a_measurement():
    small = SMALL.with_sizes(train_inputs=500, samples=10, batch_size=64)
    said = measure(data.load("digits"), small)
    assert said.startswith("estimate ")


def test_every_attack_stays_within_the_radius_and_moves():
    x = data.load("digits").x_test[:3]
    vae = untrained(Plan("constant", 5.0), tuple(x.shape[1:]), SMALL).export()
    found = attack_inside(vae, x, 0.5, SMALL.with_sizes(samples=10, r=0.4))
    length = found["inside_length"]
    assert length.shape == (len(ATTACKS), 3)
    assert (length <= 0.5 * (1 + 1e-6)).all()
    assert (length > 0).any(1).all()
    assert (found["inside_fixed"].amin(0) < 1).all()  # at r = 0.4 something breaks


def test_the_next_weight_comes_to_the_wanted_error():
    def error(beta):
        return 0.02 * beta**0.4

    for target in (0.005, 0.0199, 0.021, 0.05):
        tried = []
        for _ in range(6):
            beta = next_beta(tried, target)
            tried.append((beta, error(beta)))
        assert tried[0][0] == 1.0
        assert min(abs(e / target - 1) for _, e in tried) < 0.01
    assert next_beta([(1.0, 0.01)], 0.02) == 8.0
    assert next_beta([(1.0, 0.01)], 0.005) == 0.125


def test_the_published_margin_is_that_of_the_table():
    """mathematics.md 4.4: r = 8, m = 10, ‖σ‖ = 0.1, constants of the layers L = 5."""
    event = (1, 4, 4)
    settings = Settings("digits", hidden=(16,))
    vae = untrained(Plan("constant", 5.0), event, settings).export()
    found = published_margins(vae, torch.rand(3, *event), 8.0)
    assert found.tolist() == pytest.approx([0.1387] * 3, abs=1e-4)


def test_the_promise_for_any_input_is_below_that_for_each():
    x = torch.rand(3, 1, 4, 4)
    settings = Settings("digits", hidden=(16,))
    vae = untrained(Plan("constant", 8.0), (1, 4, 4), settings).export()
    constants = margin(vae, x, 8.0, method="lipschitz").constants
    lengths = np.linspace(0.0, 1.5, 9)
    curve = promise_anywhere(np.array(constants), 8.0, settings.latent, lengths)
    assert curve[0] > 0.99
    assert (np.diff(curve) <= 0).all()
    how = {"method": "lipschitz", "variant": "barrett2022", "radii": lengths.tolist()}
    assert (curve <= robust_probability(vae, x, 8.0, **how).p_lower.numpy() + 1e-12).all()

"""The command from end to end on small images, and its sentences for numbers that are given."""

import csv
import pickle
from functools import partial

import numpy as np
from commands import reproduce

from vaefast import data
from vaefast.cli import main
from vaefast.reproduce.camuto2021.duration import measure
from vaefast.reproduce.camuto2021.findings import findings, rank
from vaefast.reproduce.camuto2021.measure import Measured
from vaefast.reproduce.camuto2021.run import Reproduction
from vaefast.reproduce.camuto2021.settings import Settings

SIZES = {
    "betas": "0.5,1,5",
    "train-inputs": 64,
    "epochs": 1,
    "inputs": 4,
    "samples": 100,
    "restarts": 1,
    "attack-steps": 2,
    "r": 2,
}

words = partial(reproduce, "camuto2021", SIZES)


def test_every_point_has_a_row_and_a_run_goes_on(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(words(out)) == 0
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert len(rows) == 3 * 4
    for row in rows:
        assert float(row["std"]) > 0
        assert float(row["whitened"]) >= float(row["first_order"]) >= 0
    page, before = (out / "report.html").read_text(), (out / "results.csv").read_bytes()
    assert "http" not in page
    assert "Of the published claims" in page
    (out / "beta-5" / "measured.safetensors").unlink()
    capsys.readouterr()
    assert main(words(out)) == 0
    assert "train" not in capsys.readouterr().out.split("The published bound")[0]
    assert (out / "results.csv").read_bytes() == before
    for arguments, text in (
        (words(out, r=3), "r 2.0, this one has 3.0"),
        (words(tmp_path / "a", betas="1,2"), "3 or more"),
        (words(tmp_path / "b", inputs=2), "--inputs must be at least 3"),
        (words(tmp_path / "c", r=0), "--r must be positive"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert text in error, error


def test_the_full_size_is_estimated_from_a_measurement():
    small = Settings("digits", hidden=(16,), latent=4, samples=20, restarts=1, attack_steps=2)
    said = measure(data.load("digits"), small.with_sizes(train_inputs=500, inputs=16))
    assert said.startswith("estimate ")


def made(margins, *, bound=0.5):
    """Of three values of β; the larger a point's margin, the smaller its degradation."""
    settings = Settings("made-up", betas=(0.5, 1.0, 5.0), inputs=4)
    models = []
    for plan, level in zip(settings.plans, margins, strict=True):
        attacked = level * np.array([1.0, 1.1, 1.2, np.inf])
        first = bound * attacked
        first[3] = 0.0
        each = np.full(4, level), np.full(4, 1 / level), np.full(4, 0.99)
        models.append(Measured(plan, 1.0, *each, first, 1.2 * first, attacked, 1 / attacked))
    return Reproduction(settings, "made-up", models)


def test_the_paragraph_where_the_paper_holds():
    text = " ".join(findings(made([1.0, 2.0, 3.0])))
    assert "The published bound lies above the margin that an attack leaves at 0 of 9" in text
    assert "its median share of that margin is 0.50" in text
    assert "Of 12 points 3 have no bound" in text
    assert "min σ: 1.00, ‖J_μ‖_F: -1.00" in text
    assert "degradation of likelihood is -1.00 to -1.00" in text
    assert text.count(": holds;") == 2
    assert text.endswith("where the margin is larger: holds.")


def test_the_paragraph_where_it_does_not():
    text = " ".join(findings(made([3.0, 2.0, 1.0], bound=1.1)))
    assert "at 9 of 9 points" in text
    assert "below the estimated margin at every point: does not hold" in text
    assert "larger margins: does not hold" in text


def test_a_correlation_of_too_little_is_unknown():
    assert np.isnan(rank(np.array([1.0, np.inf, 2.0]), np.ones(3)))


def test_cifar10_has_a_size_of_its_own_and_says_what_is_missing(tmp_path, capsys):
    own = Settings.of_data("cifar10", full=False)
    assert (own.train_inputs, own.epochs) == (10_000, 24)
    assert Settings.of_data("cifar10", full=True).train_inputs is None
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "test_batch"):
        images = np.random.default_rng(0).integers(0, 256, (16, 3072), np.uint8)
        batch = {b"data": images, b"labels": [0] * len(images)}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=4))
    out = tmp_path / "run"
    arguments = words(out, data="cifar10", data_root=tmp_path, train_inputs=16)
    assert main(arguments) == 0
    told, page = capsys.readouterr().out.split("measure")[-1], (out / "report.html").read_text()
    for text in (told, page):
        assert "CIFAR-10 with 1 of five training batches." in text

"""The command from end to end on small images: resumed, refused, and what its page says."""

import csv
from functools import partial

import pytest
import torch
from commands import reproduce

from vaefast import data
from vaefast.cli import main
from vaefast.reproduce.khan2023.duration import measure
from vaefast.reproduce.khan2023.settings import Settings

SIZES = {
    "betas": "0.1,1,10",
    "train-inputs": 64,
    "epochs": 1,
    "inputs": 6,
    "attacked": 4,
    "attack-steps": 2,
}

words = partial(reproduce, "khan2023", SIZES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    before = torch.get_num_threads()
    assert main(words(folder)) == 0
    torch.set_num_threads(before)
    return folder


def test_every_model_has_a_row(finished):
    rows = list(csv.DictReader((finished / "results.csv").open()))
    assert [row["model"] for row in rows] == ["beta-0.1", "beta-1", "beta-10", "mixup"]
    for row in rows:
        assert float(row["strongest"]) >= 0.999 * float(row["along"]) > 0
        assert float(row["median_radius"]) > 0


def test_the_page_says_what_was_found(finished):
    page = (finished / "report.html").read_text()
    assert "http" not in page
    for part in ("Spearman&#39;s correlation of β", "At β = 1 mixup", "Of the published claims"):
        assert part in page, part


def test_a_run_goes_on_to_the_same_bytes(finished, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(words(out)) == 0
    (out / "beta-10" / "measured.safetensors").unlink()
    for path in (out / "mixup").iterdir():
        path.unlink()
    assert main(words(out)) == 0
    shown = capsys.readouterr().out.split("The report is at")[1]
    assert "train    β 10" not in shown
    assert "train    mixup" in shown
    assert (out / "results.csv").read_bytes() == (finished / "results.csv").read_bytes()


def test_mistakes_are_one_line(finished, tmp_path, capsys):
    for arguments, text in (
        (words(finished, epochs=2), "epochs 1, this one has 2"),
        (words(tmp_path / "a", betas="0.1,10,20"), "1 among them"),
        (words(tmp_path / "b", attacked=9), "--attacked must be at most --inputs"),
        (words(tmp_path / "c", inputs=10**6), "--inputs must be at most"),
        (words(tmp_path / "d", eps=0), "--eps must be positive"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert text in error, error


def test_the_published_size_is_estimated_from_a_measurement():
    small = Settings("digits", betas=(0.1, 1.0, 10.0), hidden=(16,), latent=4, attack_steps=2)
    said = measure(data.load("digits"), small.with_sizes(train_inputs=500, inputs=32, attacked=16))
    assert said.startswith("estimate ")

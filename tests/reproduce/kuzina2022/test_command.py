"""The command from end to end on small images: killed, resumed, refused."""

import csv
import subprocess
import sys
from functools import partial

import pytest
import torch
from commands import reproduce

from vaefast import data
from vaefast.cli import main
from vaefast.cli.reproduce import kuzina2022
from vaefast.reproduce.durations import said_hours
from vaefast.reproduce.kuzina2022.duration import _of_bound, measure
from vaefast.reproduce.kuzina2022.settings import Settings

SIZES = {
    "models": "vae",
    "radii": "0.2",
    "train-inputs": 48,
    "epochs": 1,
    "references": 3,
    "restarts": 2,
    "attack-steps": 2,
    "transitions": 2,
    "adaptive-steps": 1,
    "adaptive-transitions": 2,
    "adaptive-chains": 1,
    "bound-references": 0,
}
KILLED = """
import os, signal, sys
from pathlib import Path
from vaefast.cli import main

left, rename = [int(sys.argv.pop(1))], Path.replace

def replace(self, target):  # a file is whole, but not yet in its place
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)

Path.replace = replace
sys.exit(main(sys.argv[1:]))
"""

words = partial(reproduce, "kuzina2022", SIZES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    before = torch.get_num_threads()
    assert main(words(folder)) == 0
    torch.set_num_threads(before)
    return folder


@pytest.mark.parametrize("writes", [2, 7])
def test_a_killed_run_goes_on_to_the_same_bytes(finished, tmp_path, capsys, writes):
    """Killed while it writes: after the training's checkpoint, and among the cells."""
    out = tmp_path / "run"
    command = [sys.executable, "-I", "-c", KILLED, str(writes), *words(out)]
    assert subprocess.run(command, capture_output=True).returncode == -9
    assert not (out / "results.csv").exists()
    assert main(words(out)) == 0
    assert (out / "results.csv").read_bytes() == (finished / "results.csv").read_bytes()
    shown = capsys.readouterr().out
    assert ("goes on from" in shown) == (writes == 2)
    assert ("attack   VAE, 0.2" in shown) == (writes == 2)


def test_a_finished_run_computes_nothing_again(finished, capsys):
    before = (finished / "results.csv").read_bytes()
    assert main(words(finished)) == 0
    shown = capsys.readouterr().out
    assert "train" not in shown.split("Without a defence")[0]
    assert "The report is at" in shown
    assert (finished / "results.csv").read_bytes() == before


def test_the_grid_is_whole(finished):
    rows = (finished / "results.csv").read_text().splitlines()
    assert [row.split(",")[2:5] for row in rows[1:]] == [
        ["0", "none", "none"],
        ["0", "none", "hmc"],
        ["0.2", "published", "none"],
        ["0.2", "published", "hmc"],
        ["0.2", "strongest-image", "none"],
        ["0.2", "strongest-image", "hmc"],
        ["0.2", "oblivious-image", "none"],
        ["0.2", "oblivious-image", "hmc"],
        ["0.2", "adaptive-image", "hmc"],
        ["0.2", "strongest-class", "none"],
        ["0.2", "strongest-class", "hmc"],
        ["0.2", "oblivious-class", "none"],
        ["0.2", "oblivious-class", "hmc"],
        ["0.2", "adaptive-class", "hmc"],
    ]
    assert all(0 <= float(row.split(",")[5]) <= 1 for row in rows[1:])
    page = (finished / "report.html").read_text()
    assert "http" not in page
    assert "--references 3" in page


def test_the_bound_is_in_the_report(tmp_path, monkeypatch):
    small = {"temperatures": 4, "chains": 2, "leapfrog": 2}
    monkeypatch.setattr("vaefast.reproduce.kuzina2022.bound.LADDER", small)
    long = {"steps": 4, "warmup": 2, "critic_chains": 8}
    monkeypatch.setattr("vaefast.reproduce.kuzina2022.bound.LONG", long)
    out = tmp_path / "run"
    assert main(words(out, bound_references=2)) == 0
    rows = list(csv.DictReader((out / "tv-bound.csv").open()))
    assert {row["input"] for row in rows} == {"0", "1"}
    assert all(row["kind"] for row in rows)
    page = (out / "report.html").read_text()
    assert "How far the defended posterior is from the true one" in page
    assert "data processing inequality" in page


def test_an_interruption_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    stopped = kuzina2022.EXPERIMENT._replace(run=stop)
    monkeypatch.setattr(kuzina2022, "EXPERIMENT", stopped)
    assert main(words(tmp_path / "run")) == 130
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "the same command goes on from it" in error


def refused(capsys, arguments):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_mistakes_are_one_line(finished, tmp_path, capsys):
    new = tmp_path / "new"
    assert "epochs 1, this one has 2" in refused(capsys, words(finished, epochs=2))
    assert "kuzina2022" in refused(capsys, ["reproduce", "nope", *words(new)[2:]])
    assert "got 'gan'" in refused(capsys, words(new, models="gan"))
    assert "--radii" in refused(capsys, words(new, radii="0.1,x"))
    assert "--train-inputs must be at most" in refused(capsys, words(new, train_inputs=10**6))
    assert "--references must be at most" in refused(capsys, words(new, references=5000))
    assert "--adaptive-transitions must be at least 2" in refused(
        capsys, words(new, adaptive_transitions=1)
    )
    assert "writes a folder" in refused(capsys, words(tmp_path / "page.html"))
    assert "no labels" in refused(capsys, _with_data(words(new), _saved(tmp_path, (12, 8, 8))))
    assert "images are needed" in refused(capsys, _with_data(words(new), _table(tmp_path)))
    assert not new.exists()


def _with_data(arguments, path):
    return ["--data" if word == "--data" else word for word in arguments[:3]] + [
        str(path),
        *arguments[4:],
    ]


def _saved(folder, shape):
    import numpy as np

    np.save(folder / "x.npy", np.zeros(shape, np.uint8))
    return folder / "x.npy"


def _table(folder):
    rows = "\n".join(f"{k % 3},{k / 20},0.5" for k in range(20))
    (folder / "t.csv").write_text(f"a,b,c\n{rows}\n")
    return folder / "t.csv"


def test_the_published_size_is_estimated_from_a_measurement():
    found = measure(data.load("digits"), Settings("digits", models=("vae",), radii=(0.1,)))
    assert min(found) > 0
    assert str(found).startswith("estimate ")
    twice = measure(
        data.load("digits"), Settings("digits", models=("vae",), radii=(0.1,), epochs=10**6)
    )
    assert twice.training > 100 * found.training
    without = Settings("digits", models=("vae",), radii=(0.1,), bound_references=0)
    assert _of_bound(None, None, without) == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (960, "16 min"), (5400, "1.5 h"), (3e5, "3.5 days")]
)
def test_durations(seconds, text):
    assert said_hours(seconds) == text

"""Audits end to end: what they write, that they repeat, and what an interruption leaves."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings

import pyarrow.parquet as pq
import pytest

from vaefast import models
from vaefast.attacks import AttackWarning

TINY_HMC = ["--warmup", "2", "--transitions", "2", "--leapfrog", "2"]
TINY_SIZES = {"inputs": 3, "steps": 2, "restarts": 1, "samples": 20, "eps": 0.1, "threads": 1}
TINY = [word for name, size in TINY_SIZES.items() for word in (f"--{name}", size)] + TINY_HMC


def read(folder):
    summary = json.loads((folder / "summary.json").read_text())
    assert sorted(os.listdir(folder)) == sorted(
        ["report.html", "results.parquet", "summary.json"]
        + ["model.safetensors"] * ("training" in summary["model"])
    )
    return summary, pq.read_table(folder / "results.parquet")


def test_audit_trains_an_mlp_and_repeats(run, here):
    for out in ("a", "b"):
        code, stdout, stderr = run(
            "audit", "--data", "digits", "--epochs", 1, "--out", here / out, *TINY
        )
        assert (code, stderr) == (0, "")
        assert "report.html" in stdout
    (first, table), (second, again) = read(here / "a"), read(here / "b")
    assert table.equals(again)
    assert first["numbers"] == second["numbers"]
    assert first["configuration"]["inputs"] == table.num_rows == 3
    assert {"label", "latent_linf_0.1_predicted_defended"} <= set(table.column_names)
    models.load(here / "a" / "model.safetensors")


def test_audit_of_a_convolutional_vae_without_labels(run, here, save_images):
    data = save_images("rgb.npy", shape=(10, 3, 8, 8))
    code, _, stderr = run(
        "audit", "--data", data, "--architecture", "conv", "--epochs", 1, "--out", "r", *TINY
    )
    assert (code, stderr) == (0, "")
    summary, table = read(here / "r")
    assert "predicted" not in table.column_names
    assert any("without labels" in note for note in summary["notes"])
    assert "a convolutional VAE" in (here / "r" / "report.html").read_text()


def test_audit_of_a_users_module(run, here, module):
    words = ["audit", "--data", "digits", "--model", f"{module}:make_vae", "--out", "r", *TINY]
    assert run(*words)[0] == 0
    summary, _ = read(here / "r")
    assert summary["model"]["source"] == f"{module}:make_vae"
    assert summary["command"] == "vaefast " + " ".join(map(str, words))


def test_a_double_module_is_audited(run, here, module):
    words = ["audit", "--data", "digits", "--model", f"{module}:in_double", "--out", "r", *TINY]
    assert run(*words)[0] == 0


def test_training_options_contradict_a_model(refused, model):
    words = ["audit", "--data", "digits", "--model", model, "--out", "r"]
    assert "--epochs" in refused(*words, "--epochs", 3)
    assert "--beta" in refused(*words, "--beta", 1)


def test_version(run):
    code, stdout, _ = run("--version")
    assert code == 0
    assert stdout[0].isdigit()


def test_force(run, refused, here, model):
    words = ["audit", "--data", "digits", "--model", model, "--out", "r", *TINY]
    assert run(*words)[0] == 0
    assert "--force" in refused(*words)
    assert run(*words, "--force", "--seed", 1)[0] == 0
    assert read(here / "r")[0]["seed"] == 1
    (here / "r" / "mine.txt").write_text("mine")
    assert "mine.txt" in refused(*words, "--force")
    assert (here / "r" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["Probabilities", "EndsInSigmoid"])
def test_probabilities_are_not_taken_as_logits(run, refused, module, name):
    words = ["attack", "--data", "digits", "--model", f"{module}:{name}", "--out", "a.npz"]
    words += ["--inputs", 2, "--steps", 2, "--restarts", 1, "--threads", 1]
    line = refused(*words)
    assert "decode returns values in [0, 1]: pass --decoder-output probabilities" in line
    for given in ("probabilities", "logits"):
        assert run(*words, "--force", "--decoder-output", given)[0] == 0


@pytest.mark.parametrize("command", ["audit", "attack"])
def test_help_says_when_numbers_repeat(run, command):
    text = " ".join(run(command, "--help")[1].replace("│", " ").split())
    assert "same seed, machine, versions and --threads" in text


def test_the_tiniest_radius_makes_no_warning_but_that_it_moves_nothing(run, model):
    words = ["audit", "--data", "digits", "--model", model, "--out", "r", *TINY]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", AttackWarning)
        assert run(*words, "--eps", "1e-30")[::2] == (0, "")


def test_certify_says_that_the_std_was_held(run, model):
    words = ["certify", "--data", "digits", "--model", model, "--inputs", 2, "--samples", 20]
    code, stdout, _ = run(*words, "--out", "c.parquet")
    assert code == 0
    assert "not a certificate; std held at its value at x" in stdout
    meaning = pq.read_table("c.parquet").schema.field("margin_whitened").metadata[b"meaning"]
    assert b"std held" in meaning


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_leaves_nothing(here, sent, code):
    words = ["audit", "--data", "digits", "--out", "deep/report", "--threads", "1"]
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from vaefast.cli import main; sys.exit(main())",
            *words,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=here,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background
    )  # of a shell, as this suite may be, ignores it
    deadline = time.monotonic() + 600
    while not list(here.glob("deep/.report-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == code
    assert stderr == ("vaefast: interrupted; nothing was left behind\n" if code == 130 else "")
    assert os.listdir(here) == []

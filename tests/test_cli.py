"""The command line: help, one line per mistake, and audits end to end."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from vaefast import models
from vaefast.cli import describe, main

COMMANDS = ("audit", "train", "attack", "defend", "certify", "bench", "info")
TINY_HMC = ["--warmup", "2", "--transitions", "2", "--leapfrog", "2"]
TINY_SIZES = {"inputs": 3, "steps": 2, "restarts": 1, "samples": 20, "eps": 0.1, "threads": 1}
TINY = [word for name, size in TINY_SIZES.items() for word in (f"--{name}", size)] + TINY_HMC
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
def here(tmp_path, monkeypatch):
    """Work in an empty folder, with one thread, and leave torch as it was."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def run(capsys):
    """Run one command line: (exit code, stdout, stderr)."""

    def call(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def refused(run):
    """Run one command line that must end with one clear line and nothing written."""

    def call(*words):
        before = sorted(os.listdir())
        code, _, stderr = run(*words)
        assert code == 2, stderr
        assert stderr.startswith("vaefast: error: ")
        assert stderr.count("\n") == 1
        assert sorted(os.listdir()) == before
        return stderr

    return call


@pytest.fixture
def model(here):
    models.save(models.MLPVAE((1, 8, 8), (8,), 2), here / "m.safetensors")
    return "m.safetensors"


@pytest.fixture
def module(here):
    name = f"mine_{abs(hash(here)) % 10**8}"  # imports are cached by name
    (here / f"{name}.py").write_text(textwrap.dedent(MODULE))
    return name


def save_images(name, *, shape=(12, 8, 8), dtype="uint8", spoil=False):
    x = np.random.default_rng(0).integers(0, 256, shape)
    x = x.astype(dtype) if dtype == "uint8" else (x / 255).astype(dtype)
    if spoil:
        x.flat[5] = np.nan
    np.save(name, x)
    return name


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(run, command):
    code, stdout, _ = run(command, "--help")
    assert code == 0
    assert f"Example: vaefast {command}" in " ".join(stdout.split())


def test_without_words_there_is_help(run):
    code, stdout, _ = run()
    assert code == 0
    assert all(command in stdout for command in COMMANDS)


def test_info(run):
    code, stdout, _ = run("info")
    assert code == 0
    assert "pgd_step" in stdout


def test_wrong_words(refused):
    assert "'nope'" in refused("nope")
    assert "--data" in refused("audit", "--out", "r")
    assert "--out" in refused("audit", "--data", "digits")
    assert "--inputs" in refused("audit", "--data", "digits", "--out", "r", "--inputs", "0")
    assert "--eps" in refused("audit", "--data", "digits", "--out", "r", "--eps", "a")
    assert "divergence" in refused("audit", "--data", "digits", "--out", "r", "--divergence", "x")
    assert "mlp" in refused("audit", "--data", "digits", "--out", "r", "--architecture", "x")
    assert "--norm must be one of 'linf', 'l2', got 'l1'" in refused(
        "attack", "--data", "digits", "--model", "m", "--out", "a", "--norm", "l1"
    )
    assert "--kind" in refused(
        "attack", "--data", "digits", "--model", "m", "--out", "a", "--kind", "x"
    )
    assert "op must be" in refused("bench", "nope")


def test_wrong_data(refused):
    def audit(data):
        return refused("audit", "--data", data, "--out", "r")

    assert "nope.npy" in audit("nope.npy")
    assert "digits" in audit("nope")
    assert "NaN" in audit(save_images("nan.npy", dtype="float32", spoil=True))
    assert "[12]" in audit(save_images("flat.npy", shape=(12,)))
    assert "images" in audit(save_images("rows.npy", shape=(12, 64)))
    np.save("int.npy", np.zeros((4, 8, 8), np.int64))
    assert "int64" in audit("int.npy")
    assert "MNIST" in refused("audit", "--data", "mnist", "--data-root", ".", "--out", "r")


def test_wrong_models(refused, module):
    def audit(model):
        return refused("audit", "--data", "digits", "--out", "r", "--model", model)

    assert "no such file" in audit("nope.safetensors")
    Path("junk.safetensors").write_text("hello")
    assert "junk.safetensors" in audit("junk.safetensors")
    assert "no such file" in audit("nope")
    assert "importing no_such_module failed" in audit("no_such_module:make_vae")
    assert "has no 'nope'" in audit(f"{module}:nope")
    assert "not a function" in audit(f"{module}:constant")
    assert "failing() failed with KeyError" in audit(f"{module}:failing")
    assert "a_number" in audit(f"{module}:a_number")
    assert "back" in audit(f"{module}:broken")
    assert "call model.eval() first" in audit(f"{module}:dropping")


def test_a_model_of_another_shape_names_both(refused, module, model):
    data = save_images("big.npy", shape=(12, 3, 16, 16))
    line = refused("audit", "--data", data, "--out", "r", "--model", model)
    assert "[1, 8, 8]" in line
    assert "[3, 16, 16]" in line
    line = refused("audit", "--data", data, "--out", "r", "--model", f"{module}:make_vae")
    assert "[3, 16, 16]" in line


def test_an_unwritable_folder(refused):
    Path("file").touch()
    assert "cannot be written" in refused("audit", "--data", "digits", "--out", "file/report")
    assert "cannot be written" in refused(
        "train", "--data", "digits", "--out", "file/m.safetensors"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device(refused):
    line = refused("audit", "--data", "digits", "--out", "r", "--device", "cuda")
    assert "no CUDA device" in line
    assert "cpu or cuda" in refused("audit", "--data", "digits", "--out", "r", "--device", "x")


def test_defects_and_missing_packages_are_told_apart(monkeypatch, capsys):
    assert describe(ModuleNotFoundError(name="typer")) == (
        "typer is not installed; pip install 'vaefast[all]'"
    )
    assert describe(KeyError("a")).startswith("unexpected KeyError")
    assert describe(OSError(28, "No space left on device", "x")) == "x: No space left on device"
    assert describe(ValueError("two\nlines")) == "two lines"
    monkeypatch.setitem(sys.modules, "vaefast.cli.app", None)
    monkeypatch.setenv("VAEFAST_DEBUG", "1")
    assert main([]) == 1
    assert "Traceback" in capsys.readouterr().err


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


def test_audit_of_a_convolutional_vae_without_labels(run, here):
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


def test_the_steps_singly(run, refused):
    train = ["train", "--data", "digits", "--epochs", 1, "--out", "m.safetensors"]
    common = ["--model", "m.safetensors", "--inputs", 4, "--threads", 1]
    attack = ["attack", "--data", "digits", *common, "--steps", 2, "--out", "a.npz"]
    assert run(*train)[0] == 0
    assert "--force" in refused(*train)
    assert run(*attack)[0] == 0
    assert run(*attack, "--kind", "max-damage", "--eps", 0.5, "--force")[0] == 0
    defend = ["defend", "--data", "a.npz", *common, "--out", "d.npz", *TINY_HMC]
    assert run(*defend)[0] == 0
    assert run(*defend, "--data", "digits", "--force")[0] == 0
    assert (
        run("certify", "--data", "digits", *common, "--samples", 20, "--out", "c.parquet")[0] == 0
    )
    attacked, defended = np.load("a.npz"), np.load("d.npz")
    assert attacked["x_adv"].shape == attacked["x"].shape == (4, 1, 8, 8)
    assert set(attacked) == {
        *("x", "x_adv", "objective", "perturbation_norm", "failed", "history", "y")
    }
    assert np.linalg.norm((attacked["x_adv"] - attacked["x"]).reshape(4, -1), axis=1).max() <= 0.501
    assert defended["reconstruction"].shape == (4, 1, 8, 8)
    assert "margin_whitened" in pq.read_table("c.parquet").column_names


def test_defend_takes_what_attack_wrote(run, model):
    common = ["--model", model, "--inputs", 2, "--threads", 1]
    assert run("attack", "--data", "digits", *common, "--steps", 2, "--out", "a.npz")[0] == 0
    assert run("defend", "--data", "a.npz", *common, "--out", "d.npz", *TINY_HMC)[0] == 0
    assert np.array_equal(np.load("d.npz")["x"], np.load("a.npz")["x_adv"])


@pytest.fixture
def gaussian(here):
    vae = models.MLPVAE((1, 8, 8), (8,), 2, likelihood="gaussian", obs_std=0.3)
    models.save(vae, here / "g.safetensors")
    return "g.safetensors"


def test_a_likelihood_that_contradicts_a_saved_model(refused, gaussian):
    words = ["attack", "--data", "digits", "--model", gaussian, "--out", "a.npz"]
    line = refused(*words, "--likelihood", "bernoulli")
    assert "likelihood 'gaussian' already, got 'bernoulli'" in line


X = np.random.default_rng(0).random((3, 1, 8, 8), np.float32)
UNFIT = {
    "NaN": np.where(X > 0.9, np.nan, X),
    "int32": (255 * X).astype(np.int32),
    "not empty": X[:0],
    "channels last": np.ones((3, 32, 32, 3), np.float32),
}


def defending(model, x_adv):
    np.savez("bad.npz", x=X, x_adv=x_adv)
    return ["defend", "--data", "bad.npz", "--model", model, "--out", "d.npz", *TINY_HMC]


@pytest.mark.parametrize("words", UNFIT)
def test_defend_checks_what_it_is_given(refused, model, gaussian, words):
    for each in (model, gaussian):
        line = refused(*defending(each, UNFIT[words]))
        assert words in line
        assert "bad.npz: x_adv must be" in line


def test_only_a_gaussian_model_defends_values_outside_the_unit_interval(
    refused, run, model, gaussian
):
    assert "x_adv must be in [0, 1]" in refused(*defending(model, 7 * X))
    assert run(*defending(gaussian, 7 * X))[0] == 0
    assert np.array_equal(np.load("d.npz")["x"], 7 * X)


def test_defend_does_not_fall_back_on_clean_inputs(refused, model):
    command = defending(model, X)
    whole = Path("bad.npz").read_bytes()
    at = whole.index(X.tobytes(), whole.index(b"x_adv.npy"))  # spoils x_adv alone
    Path("bad.npz").write_bytes(whole[:at] + b"spoilt" + whole[at + 6 :])
    assert "bad.npz is not a readable" in refused(*command)


def test_defend_keeps_double_precision(run, module):
    x = X.astype(np.float64) / 3
    assert run(*defending(f"{module}:in_double", x))[0] == 0
    assert np.array_equal(np.load("d.npz")["x"], x)


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


def test_the_tiniest_radius_makes_no_warning(run, model):
    words = ["audit", "--data", "digits", "--model", model, "--out", "r", *TINY]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(*words, "--eps", "1e-30")[0] == 0


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
    )
    deadline = time.monotonic() + 60
    while not list(here.glob("deep/.report-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert stderr == ("vaefast: interrupted; nothing was left behind\n" if code == 130 else "")
    assert os.listdir(here) == []

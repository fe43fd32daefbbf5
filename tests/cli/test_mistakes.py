"""Help, and one line for every mistake."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vaefast.cli import describe, main

COMMANDS = ("audit", "train", "attack", "defend", "certify", "reproduce", "bench", "info")


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


def test_wrong_data(refused, save_images):
    def audit(data):
        return refused("audit", "--data", data, "--out", "r")

    assert "nope.npy" in audit("nope.npy")
    assert "digits" in audit("nope")
    assert "NaN" in audit(save_images("nan.npy", dtype="float32", spoil=True))
    assert "[12]" in audit(save_images("flat.npy", shape=(12,)))
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


def test_a_model_of_another_shape_names_both(refused, module, model, save_images):
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
    assert "no CUDA device" in refused("bench", "--device", "cuda")
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

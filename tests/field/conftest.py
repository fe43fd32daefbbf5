"""An empty folder and one command line at a time, for what users met there."""

import os
import sys

import pytest
import torch

from vaefast import models
from vaefast.cli import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty folder, with one thread, and leave torch as it was."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def run(here, capsys):
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
    """A small untrained model of digits on disk."""
    models.save(models.MLPVAE((1, 8, 8), (8,), 2), here / "m.safetensors")
    return "m.safetensors"

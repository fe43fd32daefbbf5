"""Fixtures that all tests share, and the backend table in pytest's header."""

import os
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import vaefast as vf
from vaefast import ops as _  # noqa: F401 - the ops declare themselves
from vaefast.runtime.backends import BACKENDS, interpreted, ops

DEVICE = os.environ.get("VAEFAST_TEST_DEVICE", "cpu")  # of the tests of the triton backend


def device_of(backend):
    return DEVICE if backend == "triton" else "cpu"


def pytest_addoption(parser):
    parser.addoption("--backend", choices=BACKENDS, help="run the tests of this backend only")


def pytest_report_header(config):
    rows = []
    for op in ops():
        ready = [name for name in BACKENDS if vf.supports(op, name, device=device_of(name))]
        rows.append(f"  {op:22} {' '.join(ready)}")
    return [f"vaefast backends on the CPU, triton on {DEVICE}:", *rows]


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--backend")
        metafunc.parametrize("backend", [chosen] if chosen else BACKENDS)


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by markers
def pytest_collection_modifyitems(config, items):
    """With --backend, tests that do not concern a backend were run by the other process."""
    for item in items:
        slow = interpreted() and item.get_closest_marker("slow_interpreted")
        if slow and _backend_of(item) == "triton":
            item.add_marker("proof")
    if config.getoption("--backend"):
        kept = [item for item in items if "backend" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def _backend_of(item):
    return item.callspec.params.get("backend") if hasattr(item, "callspec") else None


@pytest.fixture
def require():
    """Skip unless a backend supports an op here; the reason is the predicate's own."""

    def check(op, backend, dtype=torch.float32):
        support = vf.supports(op, backend, device=device_of(backend), dtype=dtype)
        if not support:
            pytest.skip(support.reason)

    return check


@pytest.fixture(autouse=True)
def _on_device(request, monkeypatch):
    """VAEFAST_TEST_DEVICE=cuda: what a test of the triton backend makes lies on the GPU."""
    device = device_of(_backend_of(request.node))
    if device == "cpu":
        yield
        return
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device was found")
    monkeypatch.setattr(torch, "Generator", partial(torch.Generator, device=device))
    torch.set_default_device(device)
    yield
    torch.set_default_device(None)


@pytest.fixture(scope="session")
def data_root():
    """The folder of MNIST, Fashion-MNIST and CIFAR-10; VAEFAST_DATA names it."""
    root = os.environ.get("VAEFAST_DATA")
    if not root or not Path(root, "MNIST").is_dir():
        pytest.skip("no image data sets: set VAEFAST_DATA to a folder that holds MNIST/raw")
    return Path(root)


@pytest.fixture(autouse=True)
def _fresh_settings():
    """No test leaves a memory budget, a block, a form or a tile behind."""
    yield
    vf.set_memory(1 << 30)
    vf.set_block(None)
    vf.set_generic("eager")
    vf.set_tile(None)


@pytest.fixture(scope="session", autouse=True)
def _quick_interpreter():
    """Triton's interpreter patches ``tl`` in every device function; once a module is enough."""
    if not interpreted():
        return
    from triton.runtime import interpreter

    patch, patched = interpreter._patch_lang, set()

    def call(self, *arguments, **options):
        if id(self.fn.__globals__) not in patched:
            patched.add(id(self.fn.__globals__))
            patch(self.fn)
        return self.rewrite()(*arguments, **options)

    interpreter.InterpretedFunction.__call__ = call


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty folder, with one thread, and leave torch as it was."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # of models here: tests list the folder
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def run(here, capsys):
    """Run one command line: (exit code, stdout, stderr)."""
    from vaefast.cli import main  # with all that it brings, where a test wants it

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
        code, _stdout, stderr = run(*words)
        assert code == 2, stderr
        assert stderr.startswith("vaefast: error: ")
        assert stderr.count("\n") == 1
        assert sorted(os.listdir()) == before
        return stderr

    return call


@pytest.fixture
def model(here):
    """A small untrained model of digits on disk."""
    vf.models.save(vf.models.MLPVAE((1, 8, 8), (8,), 2), here / "m.safetensors")
    return "m.safetensors"

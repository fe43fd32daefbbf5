"""Fixtures of the ops' tests: skips by the predicate, broken references, and one-row chunks."""

import sys

import pytest
import torch

import vaefast as vf
from vaefast.functional import layers
from vaefast.runtime.backends import ops

LAYERS = ("evaluate", "forward", "pull_to_first", "pullback", "pushforward")


@pytest.fixture(autouse=True)
def _needs_backend(request):
    op = request.path.stem.removeprefix("test_")
    if op not in ops() or "backend" not in request.fixturenames:
        return
    backend, dtype = request.getfixturevalue("backend"), torch.float32
    require = request.getfixturevalue("require")
    if hasattr(request.node, "callspec"):
        dtype = request.node.callspec.params.get("dtype", dtype)
    require(op, backend, dtype)


@pytest.fixture(autouse=True)
def _reference_only_by_name(request, monkeypatch):
    """Under a fast backend a reference raises, unless the test itself called its op by name.

    ``compares`` marks tests that use references in other ways.
    """
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    backend = parameters.get("backend")
    if backend in (None, "reference") or request.node.get_closest_marker("compares"):
        return
    for op in ops():
        module = sys.modules[f"vaefast.ops.{op}"]
        monkeypatch.setattr(module, "reference", _guarded(op, module.reference))


def _guarded(op, reference):
    def run(*arguments, **options):
        frame = sys._getframe(1)
        while frame is not None and frame.f_code.co_name != op:
            frame = frame.f_back
        # the op's function keeps the backend it resolved; a derivative has no such frame
        chosen = frame and (frame.f_locals.get("chosen") or frame.f_locals.get("backend"))
        assert chosen == "reference", "a fast backend called the reference"
        return reference(*arguments, **options)

    return run


@pytest.fixture
def break_references(monkeypatch):
    """A call breaks every reference from then on: the ops' own, and what those are made of."""

    def break_now():
        for op in ops():
            monkeypatch.setattr(sys.modules[f"vaefast.ops.{op}"], "reference", _broken)
            monkeypatch.setattr(sys.modules[f"vaefast.reference.{op}"], op, _broken)
        for name in LAYERS:
            monkeypatch.setattr(layers, name, _broken)

    return break_now


def _broken(*arguments, **options):
    raise AssertionError("a fast backend called the reference")


@pytest.fixture
def one_row_at_a_time():
    """The smallest memory budget: every function works through its rows one by one."""
    vf.set_memory(1)

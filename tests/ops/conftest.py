"""Fixtures of the ops' tests: skips by the predicate, broken references, and one-row chunks."""

import sys

import pytest

import vaefast as vf
from vaefast.backends import ops
from vaefast.reference import layers

LAYERS = ("evaluate", "forward", "pull_to_first", "pullback", "pushforward")


@pytest.fixture(autouse=True)
def _needs_backend(request):
    op = request.path.stem.removeprefix("test_")
    if op not in ops() or "backend" not in request.fixturenames:
        return
    if not (support := vf.supports(op, request.getfixturevalue("backend"))):
        pytest.skip(support.reason)


@pytest.fixture(autouse=True)
def _reference_is_broken(request, break_references):
    """Under a fast backend every reference raises; ``compares`` marks tests that name it."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    backend = parameters.get("backend")
    if backend in (None, "reference") or request.node.get_closest_marker("compares"):
        return
    break_references()


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

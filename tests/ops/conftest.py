"""Fixtures of the ops' tests: skips by the predicate, broken references, and one-row chunks."""

import sys

import pytest
import torch

import vaefast as vf
from vaefast.functional import network
from vaefast.ops._register import registered
from vaefast.runtime import threads
from vaefast.runtime.backends import ops

PASSES = ("evaluate", "forward", "pull_to_first", "pullback", "pushforward")


@pytest.fixture(autouse=True)
def _threads_as_asked(monkeypatch):
    """Also more than this machine has processors: bits do not depend on them."""
    monkeypatch.setattr(threads, "limit", lambda: 64)


@pytest.fixture
def cpp_and_threads():
    """The C++ kernels run whatever names no backend; a test may set the number of threads."""
    if not (support := vf.supports("net_forward", "cpp")):
        pytest.skip(support.reason)
    before = torch.get_num_threads()
    with vf.use_backend("cpp"):
        yield
    torch.set_num_threads(before)


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


@pytest.fixture
def break_references(monkeypatch):
    """A call breaks every reference from then on: the ops' own, and what those are made of."""

    def break_now():
        for op, record in registered.items():
            monkeypatch.setitem(record.implementations, "reference", _broken)
            monkeypatch.setattr(sys.modules[f"vaefast.reference.{op}"], op, _broken)
        for name in PASSES:
            monkeypatch.setattr(network, name, _broken)

    return break_now


def _broken(*arguments, **options):
    raise AssertionError("a fast backend called the reference")


@pytest.fixture
def one_row_at_a_time():
    """The smallest memory budget: every function works through its rows one by one."""
    vf.set_memory(1)

"""Fixtures of the ops' tests: skips by the predicate that the API uses, and one-row chunks."""

import pytest

import vaefast as vf
from vaefast.backends import ops


@pytest.fixture(autouse=True)
def _needs_backend(request):
    op = request.path.stem.removeprefix("test_")
    if op not in ops() or "backend" not in request.fixturenames:
        return
    if not (support := vf.supports(op, request.getfixturevalue("backend"))):
        pytest.skip(support.reason)


@pytest.fixture
def one_row_at_a_time():
    """The smallest memory budget: every function works through its rows one by one."""
    vf.set_memory(1)

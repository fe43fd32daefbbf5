"""The MLP ops at the instruction-set levels that this processor has but would not choose."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vaefast as vf

OPS = Path(__file__).parent.parent / "ops"
TESTS = [str(OPS / name) for name in ("test_same_bits.py", "test_error_rule.py")]


def other_levels():
    if not vf.supports("net_forward", "cpp"):
        return []
    from vaefast import _C

    first, *others = [level for level in _C.isa_levels() if level != _C.isa()] or [None]
    slow = [pytest.param(level, marks=pytest.mark.proof) for level in others]
    return [first, *slow] if first else []


@pytest.mark.parametrize("level", other_levels())
def test_bits_and_errors(level):
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS],
        env={**os.environ, "VAEFAST_ISA": level},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",  # a checkout's own folder would shadow the installed package
    )
    assert result.returncode == 0, result.stdout[-3000:]

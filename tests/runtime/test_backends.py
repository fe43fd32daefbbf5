"""The choice of a backend: by support, by name, by environment; and info(), which shows it."""

import logging
import os
import subprocess
import sys

import pytest
import torch

import vaefast as vf
from vaefast.bench.cases import images
from vaefast.runtime import backends

STEP = {"alpha": 0.1, "eps": 0.1}
CPP = bool(vf.supports("pgd_step", "cpp"))
needs_cpp = pytest.mark.skipif(not CPP, reason="the C++ extension is not loaded")


def run(code, **environment):
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, cwd="/"
    )


@needs_cpp
def test_the_fast_backend_is_chosen_unasked():
    assert backends.resolve("pgd_step", None, torch.zeros(2, 3)) == "cpp"


def test_support_is_a_predicate_with_a_reason():
    assert vf.supports("pgd_step", "reference")
    support = vf.supports("pgd_step", "cpp", dtype=torch.float16)
    assert not support
    assert "float16" in support.reason
    support = vf.supports("pgd_step", "cpp", device="cuda")
    assert support.reason == 'backend "cpp" takes CPU tensors, got cuda; pass x.cpu()'
    with pytest.raises(ValueError, match="op must be one of"):
        vf.supports("pgd", "cpp")


def test_a_fallback_is_logged_once_with_its_reason(caplog):
    backends._said.clear()
    with caplog.at_level(logging.INFO, logger="vaefast"):
        for _ in range(2):
            vf.pgd_step(*images(2, 5, dtype=torch.bfloat16), **STEP)
    messages = [record.message for record in caplog.records]
    assert len(messages) == 1
    assert "pgd_step runs on the reference" in messages[0]


def test_use_backend_forces_and_restores():
    with vf.use_backend("reference"):
        assert backends.resolve("pgd_step", None, torch.zeros(2, 3)) == "reference"
        with vf.use_backend(None):
            assert backends.resolve("pgd_step", None, torch.zeros(2, 3)) != "triton"
        assert backends.resolve("pgd_step", None, torch.zeros(2, 3)) == "reference"
    with pytest.raises(ValueError, match="backend must be one of"):
        vf.use_backend("mkl").__enter__()


@needs_cpp
def test_triton_needs_the_interpreter_on_the_cpu():
    code = "import vaefast, torch; z = torch.zeros(1, 2)\n"
    code += "vaefast.pgd_step(z, z, z, alpha=.1, eps=.1, backend='triton')"
    result = run(code, TRITON_INTERPRET="")
    assert result.returncode == 1
    assert "under TRITON_INTERPRET=1" in result.stderr


def test_environment_forces_a_backend():
    code = "import vaefast.ops, torch; from vaefast.runtime.backends import resolve\n"
    code += "print(resolve('pgd_step', None, torch.zeros(1, 2)))"
    assert run(code, VAEFAST_BACKEND="reference").stdout.strip() == "reference"
    assert "VAEFAST_BACKEND must be one of" in run(code, VAEFAST_BACKEND="fast").stderr


def test_a_required_backend_that_is_missing_is_an_error():
    hide = "import sys; sys.modules['vaefast._C'] = None\nimport vaefast"
    result = run(hide, VAEFAST_REQUIRE="cpp")
    assert result.returncode == 1
    assert "VAEFAST_REQUIRE=cpp: the C++ extension is not loaded" in result.stderr
    assert run(hide, VAEFAST_REQUIRE="").returncode == 0


@needs_cpp
def test_an_isa_level_can_be_pinned_and_all_levels_agree():
    code = (
        "import torch, vaefast; from vaefast import _C; from vaefast.bench.cases import images\n"
        "data = images(33, 1030)\n"
        "import hashlib\n"
        "digest = hashlib.sha256()\n"
        "for norm in ('linf', 'l2'):\n"
        "    out = vaefast.pgd_step(*data, alpha=.01, eps=.3, norm=norm, backend='cpp')\n"
        "    digest.update(out.numpy().tobytes())\n"
        "print(_C.isa(), digest.hexdigest())"
    )
    from vaefast import _C

    digests = set()
    for level in _C.isa_levels():
        name, digest = run(code, VAEFAST_ISA=level).stdout.split()
        assert name == level
        digests.add(digest)
    assert len(digests) == 1
    assert "VAEFAST_ISA must be one of" in run("import vaefast._C", VAEFAST_ISA="mmx").stderr


def test_info_shows_versions_machine_and_every_op():
    text = str(vf.info())
    for word in ("torch", "processor", "GPU", "OpenMP", *backends.ops()):
        assert word in text
    assert "no: " in text  # somewhere a backend is missing, with its reason


def test_importing_touches_no_gpu_and_compiles_nothing():
    code = (
        "import sys, vaefast\n"
        "assert 'torch' not in sys.modules\n"
        "import torch; vaefast.pgd_step, vaefast.attacks, vaefast.hmc\n"
        "assert not torch.cuda.is_initialized()\n"
        "assert not {'triton', 'torch._dynamo', 'scipy.stats'} & set(sys.modules)"
    )
    assert run(code, VAEFAST_REQUIRE="").returncode == 0

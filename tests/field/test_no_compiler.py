"""A machine without a compiler: the package installs without its C++ kernels and says so.

It ran many times slower, and only a log line told, which nobody saw. A call that would use the
kernels warns once a process, and ``explain`` and ``info`` say "reference" with the reason.
"""

import os
import subprocess
import sys

HEAD = """
import sys, warnings
sys.modules["vaefast._C"] = None  # as if it had not been built
import torch, vaefast as vf
vae, x = vf.models.MLPVAE((4,), hidden=(3,), latent=2).eval(), torch.full((2, 4), 0.5)
"""


def run(code, **environment):
    """What a process prints: its output, and its warnings."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code],
        capture_output=True,
        text=True,
        env={**os.environ, "VAEFAST_REQUIRE": "", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_one_warning_a_process():
    _, said = run(
        "vf.geometry.jacobian(vae, x); vf.attacks.latent(vae, x, eps=0.1, steps=1);"
        "vf.pgd_step(x, x, x, alpha=0.1, eps=0.1)"
    )
    assert said.count("the C++ extension is not loaded") == 1
    assert "RuntimeWarning" in said
    assert "install vaefast with a C++ compiler" in said


def test_explain_and_info_say_reference_and_warn_too():
    shown, said = run("print(vf.explain(vae, x)); print(vf.info())")
    assert "ops             reference: the C++ extension is not loaded" in shown
    assert "reference: no C++ kernels" in shown
    assert said.count("the C++ extension is not loaded") == 1


def test_no_warning_where_the_reference_is_asked_for():
    _, said = run("vf.geometry.jacobian(vae, x); vf.explain(vae, x)", VAEFAST_BACKEND="reference")
    assert said == ""

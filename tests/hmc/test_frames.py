"""Little stands between the public call and the kernel."""

import sys

import pytest
import torch

import vaefast as vf
from vaefast.hmc import defend, sample, tune
from vaefast.models import prepare as preparing

HERE = "vaefast/hmc/sample.py"


def images(rows, dtype=torch.float32):
    return torch.rand(rows, 6, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.skipif(not vf.supports("net_chain", "cpp"), reason="needs the C++ kernels")
@pytest.mark.parametrize("warmup", [0, 3])
def test_at_most_seven_frames_from_sample_to_the_binding(mlp_vae, monkeypatch, warmup):
    """Counted where the kernel is entered; the dispatcher's own frame is torch's."""
    module, frames = sys.modules["vaefast.ops.net_chain"], []
    kernel = module.kernel

    def counting(op, dtype):
        found, frame = kernel(op, dtype), sys._getframe(1)
        names = []
        while frame is not None and not frame.f_code.co_filename.endswith(HERE):
            names.append(frame.f_code)
            frame = frame.f_back
        ours = [code.co_name for code in names if "/vaefast/" in code.co_filename]
        frames.append([*ours, "sample"])
        return found

    monkeypatch.setattr(module, "kernel", counting)
    sample(mlp_vae(dtype=torch.float32), images(2), steps=5, warmup=warmup, backend="cpp")
    assert len(frames) == 1
    assert len(frames[0]) <= 7, frames[0]


@pytest.fixture
def prepared(monkeypatch):
    """One entry for each time that a VAE's maps are recognised."""
    made = []
    example = preparing._example
    monkeypatch.setattr(preparing, "_example", lambda *given: made.append(1) or example(*given))
    return made


@pytest.mark.parametrize("generic", [False, True])
def test_a_public_call_prepares_once(mlp_vae, prepared, generic):
    vae, x = mlp_vae(generic=generic), images(3, torch.float64)
    for call in (
        lambda: sample(vae, x, steps=2, warmup=1),
        lambda: defend(vae, x, steps=2, warmup=1),
        lambda: tune(vae, x, leapfrogs=(1, 2), steps=2, warmup=1),
    ):
        prepared.clear()
        call()
        assert len(prepared) == 1


@pytest.mark.parametrize("call", [defend, tune])
def test_an_unknown_option_is_named(mlp_vae, call):
    with pytest.raises(TypeError, match="'leaps'"):
        call(mlp_vae(), images(2, torch.float64), leaps=3)

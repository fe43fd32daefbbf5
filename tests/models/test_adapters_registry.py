"""How adapters are found: by class, by registration, by entry point, and none by importing."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import nn

from vaefast.models import VAE, adapters, as_vae

ROOT = Path(__file__).parents[2]


class Odd(nn.Module):
    """A model of a library that nobody knows."""

    def f(self, x):
        return x[:, :2]


def fits(module):
    return isinstance(module, Odd)


def wrap(module, options):
    mean = nn.Module()
    mean.forward = module.f
    return VAE(encoder_mean=mean, encoder_logvar=torch.zeros(2), decoder=nn.Linear(2, 4), **options)


ODD = adapters.Adapter("odd", fits, wrap)


@pytest.fixture
def _clean():
    adapters._installed.cache_clear()
    yield
    adapters._registered.clear()
    adapters._installed.cache_clear()


def as_odd(**options):
    x = torch.rand(3, 4)
    vae = as_vae(Odd(), **options)
    assert torch.equal(vae.encode(x)[0], x[:, :2])
    return vae


@pytest.mark.usefixtures("_clean")
def test_a_registered_adapter_gets_the_options_that_were_given():
    adapters.register(ODD)
    assert as_odd().likelihood == "bernoulli"
    assert as_odd(likelihood="gaussian", obs_std=0.5).obs_std == 0.5
    with pytest.raises(TypeError, match="adapter must be a vaefast Adapter, got str"):
        adapters.register("odd")


@pytest.mark.usefixtures("_clean")
def test_an_entry_point_of_another_package_is_found(monkeypatch):
    point = EntryPoint("odd", f"{__name__}:ODD", adapters.GROUP)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(adapters, "entry_points", lambda group: [point])
    as_odd()


@pytest.mark.usefixtures("_clean")
def test_an_entry_point_that_fails_is_said_and_passed_over(monkeypatch):
    point = EntryPoint("broken", "no_such_module:ADAPTER", adapters.GROUP)
    monkeypatch.setattr(adapters, "entry_points", lambda group: [point])
    with pytest.warns(UserWarning, match=r"adapter 'broken' .* cannot be loaded: No module named"):
        assert adapters.find(nn.Linear(2, 2)) is None


def test_our_own_are_entry_points_too():
    text = (ROOT / "pyproject.toml").read_text()
    assert f'[project.entry-points."{adapters.GROUP}"]' in text
    for name, value in adapters.BUILT_IN.items():
        assert f'{name} = "{value}"' in text


def test_no_library_is_imported_for_its_adapter(tmp_path):
    code = (
        "import sys, torch, vaefast as vf\n"
        "m = torch.nn.Module()\n"
        "m.encode = lambda x: (x, x)\n"
        "m.decode = lambda z: z\n"
        "vf.as_vae(m)\n"
        "assert not {'pythae', 'diffusers', 'scvi'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)

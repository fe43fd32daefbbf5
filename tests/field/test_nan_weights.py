"""A model whose weights had become NaN: every row "failed" with exit code 0, or the advice was to
drop row 0. The model and its parameter are named instead, before anything long runs.
"""

import numpy as np
import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.models.finite_model import check_outputs

NAN = float("nan")
X = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Module(nn.Module):
    """As people write it: nothing of it lowers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.e, self.d = nn.Linear(64, 4), nn.Linear(2, 64)
        self.register_buffer("mask", torch.full((64,), -torch.inf))

    def encode(self, x):
        return self.e(x.flatten(1)).chunk(2, 1)

    def decode(self, z):
        return self.d(z).sort(dim=1).values.view(-1, 1, 8, 8).clamp(max=9.0)


def spoilt(name, value=NAN, make=Module):
    module = make().eval()
    module.get_parameter(name).data.view(-1)[0] = value
    return vf.as_vae(module, encoder_output="logvar")


PUBLIC = {
    "latent": lambda v, x: vf.attacks.latent(v, x, eps=0.1, steps=2),
    "max_damage": lambda v, x: vf.attacks.max_damage(v, x, eps=0.1, steps=2),
    "sample": lambda v, x: vf.hmc.sample(v, x, steps=2, warmup=2),
    "defend": lambda v, x: vf.hmc.defend(v, x, steps=2, warmup=2),
    "tune": lambda v, x: vf.hmc.tune(v, x, warmup=1, steps=2),
    "frobenius_norm": lambda v, x: vf.geometry.frobenius_norm(v, x, of="reconstruction"),
    "spectral_norm": lambda v, x: vf.geometry.spectral_norm(v, x, of="reconstruction"),
    "pullback_spectrum": lambda v, x: vf.geometry.pullback_spectrum(v, x, of="reconstruction"),
    "robust_probability": lambda v, x: vf.certify.robust_probability(v, x, 1.0, samples=10),
    "evaluate_elbo": lambda v, x: vf.training.evaluate_elbo(v, x),
    "fit": lambda v, x: vf.training.fit(v, x, epochs=1),
    "likelihood_degradation": lambda v, x: vf.metrics.likelihood_degradation(v, x, x),
    "LatentClassifier": lambda v, x: vf.metrics.LatentClassifier.fit(v, x, torch.arange(3) % 2),
    "explain": lambda v, x: vf.explain(v, x),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_function_names_the_parameter(name):
    """Of the encoder, before anything else is said of the rows."""
    for value, words in ((NAN, "NaN in 1 of 256"), (torch.inf, "infinity in 1 of 256")):
        with pytest.raises(ValueError, match=f"parameter 'e.weight' must be finite, got {words}"):
            PUBLIC[name](spoilt("e.weight", value), X)


@pytest.mark.parametrize("name", ["sample", "defend", "max_damage", "robust_probability"])
def test_a_decoder_is_named_as_well(name):
    with pytest.raises(ValueError, match=r"parameter 'd\.bias' must be finite, got NaN"):
        PUBLIC[name](spoilt("d.bias"), X)


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("part", ["encoder.mean", "decoder.0"])
@pytest.mark.parametrize("name", ["sample", "max_damage", "robust_probability", "spectral_norm"])
def test_weights_of_a_network_that_lowers(name, part, used):
    """Also where the model worked before, and was trained into NaN since."""
    vae = vf.models.MLPVAE((1, 8, 8), (8,), 2).eval()
    if used:
        PUBLIC[name](vae, X)
    with torch.no_grad():
        vae.get_parameter(f"{part}.weight").fill_(NAN)
    with pytest.raises(ValueError, match=f"parameter '{part}.weight' must be finite, got NaN"):
        PUBLIC[name](vae, X)


def test_rows_and_masks_are_not_the_weights_fault():
    vae = vf.as_vae(Module().eval(), encoder_output="logvar")
    check_outputs(vae, torch.tensor([[NAN]]))  # all weights are finite; the mask may be -inf
    x = X.clone()
    x[1] = NAN
    with pytest.warns(match="x holds NaN"):
        failed = vf.attacks.latent(vae, x, eps=0.1, steps=2).failed
    assert failed.tolist() == [False, True, False]


SOURCE = """
import torch, vaefast as vf
def make(name="encoder.mean.weight"):
    vae = vf.models.load("m.safetensors")
    vae.get_parameter(name).data.fill_(float("nan"))
    return vae
def decoder():
    return make(next(n for n, _ in vae_names() if n.startswith("decoder")))
def vae_names():
    return vf.models.load("m.safetensors").named_parameters()
class Rootless(torch.nn.Module):  # finite weights, and nothing finite comes of them
    def __init__(self):
        super().__init__()
        self.e, self.d = torch.nn.Linear(64, 4), torch.nn.Linear(2, 64)
    def encode(self, x):
        return (self.e(x.flatten(1)) * 0 - 1).sqrt().chunk(2, 1)
    def decode(self, z):
        return self.d(z).view(-1, 1, 8, 8)
def rootless():
    return Rootless()
"""
SHORT = ["--inputs", 2, "--threads", 1]
COMMANDS = {
    "attack": ["--steps", 2, "--restarts", 1, "--out", "o.npz"],
    "defend": ["--warmup", 2, "--transitions", 2, "--out", "o.npz"],
    "certify": ["--samples", 10, "--out", "o.parquet"],
    "audit": ["--steps", 1, "--restarts", 1, "--samples", 10, "--out", "r"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_the_model(refused, here, model, command):
    (here / "mine.py").write_text(SOURCE)
    for make, parameter in (("make", "encoder.mean.weight"), ("decoder", "decoder.")):
        words = ["--data", "digits", "--model", f"mine.py:{make}", *SHORT, *COMMANDS[command]]
        line = refused(command, *words)
        assert f"--model mine.py:{make}: the model's parameter '{parameter}" in line
        assert "must be finite, got NaN" in line


@pytest.mark.parametrize("command", ["attack", "defend"])
def test_when_every_row_failed_the_exit_code_says_so(run, here, model, command):
    (here / "mine.py").write_text(SOURCE)
    words = ["--data", "digits", "--model", "mine.py:rootless", *SHORT, *COMMANDS[command]]
    code, _, stderr = run(command, *words)
    assert code == 2
    assert "all 2 inputs failed: " in stderr
    assert "; o.npz holds NaN" in stderr
    assert np.load("o.npz")["failed"].all()

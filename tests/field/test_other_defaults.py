"""Another default device or dtype changes no result: a user's ``torch.set_default_device("cuda")``.

A model on the CPU then died with a segmentation fault in any function, for the memory of packed
weights was another device's. Every op and every public function must give the same bits as ever.
"""

import copy
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass

import pytest
import torch
from samples import SAMPLES, Shape, same

import vaefast as vf
from vaefast.bench.cases import network
from vaefast.models import MLPVAE, ConvVAE
from vaefast.runtime.defaults import default_device

# "meta" stands for "cuda" and "mps": what is made there has no memory that a kernel could write
OTHERS = {"meta, bfloat16": ("meta", torch.bfloat16), "float64": ("cpu", torch.float64)}

OPTIONS = {"steps": 2, "eps": 0.1}
SHORT = {"steps": 2, "warmup": 2, "leapfrog": 2}
CALLS = {
    "attacks.latent": lambda vae, x: vf.attacks.latent(vae, x, restarts=2, **OPTIONS),
    "attacks.max_damage": lambda vae, x: vf.attacks.max_damage(vae, x, **OPTIONS),
    "attacks.geometric": lambda vae, x: vf.attacks.geometric(vae, x, eps=0.1, of="reconstruction"),
    "certify.robust_probability": lambda vae, x: vf.certify.robust_probability(
        vae, x, 1.0, samples=20
    ),
    "certify.margin": lambda vae, x: vf.certify.margin(vae, x, 3.0, samples=20),
    "certify.margin whitened": lambda vae, x: vf.certify.margin(
        vae, x, 3.0, samples=20, method="whitened"
    ),
    "certify.empirical_margin": lambda vae, x: vf.certify.empirical_margin(
        vae, x, 0.5, grid=2, bisections=1, restarts=2, steps=2, samples=20
    ),
    "geometry.frobenius_norm": vf.geometry.frobenius_norm,
    "geometry.frobenius_norm estimated": lambda vae, x: vf.geometry.frobenius_norm(
        vae, x, method="hutchinson"
    ),
    "geometry.spectral_norm": lambda vae, x: vf.geometry.spectral_norm(vae, x, of="decoder"),
    "geometry.jacobian": vf.geometry.jacobian,
    "geometry.pullback_spectrum": vf.geometry.pullback_spectrum,
    "geometry.robustness_scores": vf.geometry.robustness_scores,
    "metrics.likelihood_degradation": lambda vae, x: vf.metrics.likelihood_degradation(
        vae, x, x.flip(0)
    ),
    "metrics.msssim": lambda vae, x: vf.metrics.msssim(x, x.flip(0)),
    "metrics.LatentClassifier": lambda vae, x: vf.metrics.LatentClassifier.fit(
        vae, x, x.new_tensor([0, 1, 0]).long(), epochs=2
    ),
    "training.evaluate_elbo": vf.training.evaluate_elbo,
    "hmc.sample": lambda vae, x: vf.hmc.sample(vae, x, **SHORT),
    "hmc.sample adapted": lambda vae, x: vf.hmc.sample(
        vae, x, steps=2, leapfrog=2, schedule="kuzina2022"
    ),
    "hmc.defend": lambda vae, x: vf.hmc.defend(vae, x, **SHORT),
    "training.fit": lambda vae, x: vf.training.fit(
        copy.deepcopy(vae), x, epochs=1, validation=0.4, progress=False
    ),
    "hmc.tune": lambda vae, x: vf.hmc.tune(vae, x, leapfrogs=(2, 3), steps=4, warmup=2),
    "explain": lambda vae, x: list(map(ord, str(vf.explain(vae, x)))),
    "reconstruct": lambda vae, x: vae.reconstruct(x),
}


@contextmanager
def others(name):
    device, dtype = OTHERS[name]
    before = torch.get_default_dtype()
    torch.set_default_device(device)
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)


def tensors_of(value, path="result"):
    """Every tensor and number in a result, by where it stands."""
    if isinstance(value, torch.Tensor | float | int | bool):
        return {path: value}
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    elif hasattr(value, "_asdict"):
        value = value._asdict()
    elif isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return {}
    return {
        key: leaf
        for name, part in value.items()
        for key, leaf in tensors_of(part, f"{path}.{name}").items()
    }


@pytest.mark.parametrize("default", OTHERS)
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: f"{s.op} {s.label}".strip())
def test_ops(sample, default, backend, require):
    dtype = sample.dtypes[0]
    require(sample.op, backend, dtype)
    given = sample.make(dtype, Shape())
    expected = sample.call(given, backend)
    with others(default):
        found = sample.call(given, backend)
    assert [t.device for t in found] == [t.device for t in expected]
    assert [t.dtype for t in found] == [t.dtype for t in expected]
    assert all(map(same, found, expected))


@pytest.mark.parametrize("default", OTHERS)
@pytest.mark.parametrize("model", ["mlp", "conv"])
@pytest.mark.parametrize("name", CALLS)
def test_public_functions(name, model, default):
    if model == "mlp":
        vae = MLPVAE((1, 8, 8), hidden=(8,), latent=2).eval()
    else:
        vae = ConvVAE((1, 8, 8), channels=4, latent=2).eval()
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    if name == "metrics.msssim":
        x = torch.rand(3, 1, 176, 176, generator=torch.Generator().manual_seed(0))
    expected = tensors_of(CALLS[name](vae, x))
    with others(default):
        found = tensors_of(CALLS[name](vae, x))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert (found[key].dtype, found[key].device) == (value.dtype, value.device), key
            assert torch.equal(found[key].nan_to_num(), value.nan_to_num()), key
        else:
            assert found[key] == value, key


def test_the_default_device_is_known_while_it_is_set_and_after():
    assert default_device() == torch.device("cpu")
    for name in ("meta", "cpu"):
        with torch.device(name):
            assert default_device() == torch.device(name)
    torch.set_default_device("meta")
    try:
        assert default_device() == torch.device("meta")
        assert network((3, 2), "tanh").weights[0].is_meta
    finally:
        torch.set_default_device(None)
    assert default_device() == torch.device("cpu")

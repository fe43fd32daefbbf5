"""What a public call does once, however many functions it is made of."""

from collections import Counter

import pytest
import torch
from unlowered import unlowered

import vaefast as vf
from vaefast import checks
from vaefast.elbo import evaluate_elbo
from vaefast.models import MLPVAE, lowering, packs, shared

OPTIONS = {"steps": 2, "eps": 0.1}
CALLS = {
    "probability": lambda vae, x: vf.certify.robust_probability(vae, x, 1.0, samples=20),
    "margin": lambda vae, x: vf.certify.margin(vae, x, 3.0, samples=20),
    "whitened": lambda vae, x: vf.certify.margin(vae, x, 3.0, samples=20, method="whitened"),
    "empirical": lambda vae, x: vf.certify.empirical_margin(
        vae, x, 0.5, grid=2, bisections=1, restarts=2, steps=2, samples=20
    ),
    "frobenius": vf.geometry.frobenius_norm,
    "hutchinson": lambda vae, x: vf.geometry.frobenius_norm(vae, x, method="hutchinson"),
    "spectral": lambda vae, x: vf.geometry.spectral_norm(vae, x, of="reconstruction"),
    "jacobian": vf.geometry.jacobian,
    "spectrum": lambda vae, x: vf.geometry.pullback_spectrum(vae, x, of="reconstruction", std=True),
    "scores": vf.geometry.robustness_scores,
    "latent": lambda vae, x: vf.attacks.latent(vae, x, **OPTIONS),
    "max_damage": lambda vae, x: vf.attacks.max_damage(vae, x, **OPTIONS),
    "geometric": lambda vae, x: vf.attacks.geometric(vae, x, eps=0.1, of="reconstruction"),
    "degradation": lambda vae, x: vf.metrics.likelihood_degradation(vae, x, x.flip(0)),
    "elbo": evaluate_elbo,
    "sample": lambda vae, x: vf.hmc.sample(vae, x, steps=2, warmup=2, leapfrog=2),
    "defend": lambda vae, x: vf.hmc.defend(vae, x, steps=2, warmup=2, leapfrog=2),
}
ENCODER_ONLY = ("frobenius", "hutchinson", "jacobian", "scores", "latent")


@pytest.fixture
def x():
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def counts(monkeypatch):
    """How often each of these ran."""
    found = Counter()

    def watch(module, name, key):
        plain = getattr(module, name)

        def counted(*arguments, **options):
            found[key(*arguments)] += 1
            return plain(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    watch(lowering, "encoder", lambda *_: "encoder lowered")
    watch(lowering, "known_encoder", lambda *_: "encoder looked up")
    watch(lowering, "decoder", lambda *_: "decoder lowered")
    watch(lowering, "pixels", lambda *_: "pixels lowered")
    watch(packs, "pack", lambda net, *_: "packed" if net.packed is None else "completed")
    watch(shared, "known_bytes", lambda *_: "footprints")
    watch(checks, "eval_mode", lambda *_: "eval checks")
    watch(checks, "row_index", lambda *_: "index checks")
    watch(vf.VAE, "encode", lambda *_: "encode")
    return found


class Methods(torch.nn.Module):
    """Code of a caller's own, which may change in ways that nobody sees."""

    def __init__(self):
        super().__init__()
        self.enc, self.dec = torch.nn.Linear(64, 6), torch.nn.Linear(3, 64)

    def encode(self, x):
        return self.enc(x.flatten(1)).tanh().chunk(2, dim=1)

    def decode(self, z):
        return self.dec(z).view(-1, 1, 8, 8)


def own_layers():
    return MLPVAE((1, 8, 8), hidden=(12,), latent=3).eval()


def own_code():
    return vf.as_vae(Methods(), decoder_output="logits", encoder_output="logvar").eval()


@pytest.mark.parametrize("make", [own_layers, own_code])
@pytest.mark.parametrize("name", CALLS)
def test_a_lowered_model_is_recognised_once(name, make, x, counts, require):
    require("net_forward", "cpp")
    vae = make()
    CALLS[name](vae, x)  # traces
    counts.clear()
    CALLS[name](vae, x)
    assert counts["encoder looked up"] == 1
    assert counts["encoder lowered"] == (make is own_code)
    assert counts["decoder lowered"] <= 1 + (name == "defend")  # g is made from it
    assert counts["pixels lowered"] <= (name not in ENCODER_ONLY)
    assert counts["eval checks"] == 1
    assert counts["encode"] == (make is own_code)  # of two rows, to compare them
    assert counts["index checks"] <= 2  # an op that draws looks at it too
    assert counts["footprints"] == 0
    assert counts["packed"] <= 4  # μ, σ, both heads side by side, the decoder


@pytest.mark.parametrize("name", CALLS)
def test_a_frozen_model_is_not_compared_again(name, x, counts, require):
    require("net_forward", "cpp")
    vae = own_code()
    CALLS[name](vae, x)
    with vf.frozen(vae):
        counts.clear()
        CALLS[name](vae, x)
    assert counts["encoder lowered"] == 0
    assert counts["encoder looked up"] == 2  # without the promise, and with it
    assert counts["encode"] == 0


@pytest.mark.parametrize("name", CALLS)
def test_a_known_model_is_not_looked_up_again(name, x, counts, require):
    require("net_forward", "cpp")
    vae = own_layers()
    for _ in range(3):
        counts.clear()
        CALLS[name](vae, x)
    assert not {key for key in counts if "lowered" in key or "looked up" in key}
    assert counts["eval checks"] == 1


@pytest.mark.parametrize("name", CALLS)
def test_a_module_is_recognised_once_and_its_rows_weighed_once(name, x, counts):
    CALLS[name](unlowered((1, 8, 8), channels=3, latent=3), x)
    assert counts["encoder lowered"] == 1
    assert counts["decoder lowered"] <= 1 + (name == "defend")
    assert counts["pixels lowered"] <= 1
    assert counts["eval checks"] == counts["index checks"] == 1
    assert counts["footprints"] <= 2  # encoder and decoder
    assert counts["packed"] == 0


def test_what_a_call_does_not_need_is_not_lowered(x, counts):
    vae = MLPVAE((1, 8, 8), hidden=(12,), latent=3).eval()
    for name in ENCODER_ONLY:
        CALLS[name](vae, x)
    assert counts["decoder lowered"] == counts["pixels lowered"] == 0

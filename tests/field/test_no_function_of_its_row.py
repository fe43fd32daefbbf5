"""A model that samples in encode, drops out in evaluation, or norms by the batch was measured like
any other: equal calls differed, and a row's numbers depended on the batch it stood in, under a
promise of the same bits. Every public function refuses it and names the module.
"""

import pytest
import torch
import torch.nn.functional as F
from field_models import Hidden
from torch import nn

import vaefast as vf

X = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Model(Hidden):
    """Does not lower: sin is no layer."""

    side, latents = 4, 2

    def encode(self, x):
        return tuple(half.sin() for half in super().encode(x))

    def decode(self, z):
        return super().decode(z).sin()


class Dropping(Model):
    def hidden(self, x):
        return F.dropout(x, 0.3)


class Drawing(Model):
    def encode(self, x):
        mean, logvar = super().encode(x)
        return mean + torch.randn_like(mean), logvar


class OfTheBatch(Model):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, track_running_stats=False)

    def hidden(self, x):
        return self.norm(x)


class DroppingDecoder(Model):
    def decode(self, z):
        return super().decode(F.dropout(z, 0.5))


class ByPlace(Model):
    def __init__(self):
        super().__init__()
        self.register_buffer("conditions", torch.rand(64, 1, 1, 1))

    def hidden(self, x):
        return x + self.conditions[: len(x)]


REFUSED = {
    Dropping: "Dropping.encode is random",
    Drawing: "Drawing.encode is random",
    OfTheBatch: r"layer 'norm' \(BatchNorm2d\) gives a row another result beside another row",
    DroppingDecoder: "DroppingDecoder.decode is random",
    ByPlace: "ByPlace.encode gives two equal rows different results by their place in the batch",
}
SHORT = {"steps": 2, "warmup": 2, "leapfrog": 2}
OF_DECODER = {
    "certify.robust_probability": lambda vae, x: vf.certify.robust_probability(
        vae, x, 1.0, samples=5
    ),
    "certify.margin": lambda vae, x: vf.certify.margin(vae, x, 1.0, samples=5),
    "geometry.spectral_norm": lambda vae, x: vf.geometry.spectral_norm(vae, x, of="decoder"),
    "attacks.max_damage": lambda vae, x: vf.attacks.max_damage(vae, x, eps=0.1, steps=2),
    "hmc.sample": lambda vae, x: vf.hmc.sample(vae, x, **SHORT),
    "hmc.defend": lambda vae, x: vf.hmc.defend(vae, x, **SHORT),
    "training.evaluate_elbo": lambda vae, x: vf.training.evaluate_elbo(vae, x, samples=2),
}
OF_ENCODER = {
    "geometry.frobenius_norm": vf.geometry.frobenius_norm,
    "geometry.pullback_spectrum": vf.geometry.pullback_spectrum,
    "attacks.latent": lambda vae, x: vf.attacks.latent(vae, x, eps=0.1, steps=2),
}
CALLS = OF_DECODER | OF_ENCODER


def wrapped(module):
    return vf.as_vae(
        module.eval(), encoder_output="logvar", decoder_output="logits", event_shape=X.shape[1:]
    )


CASES = [
    (name, make)
    for name in CALLS
    for make in REFUSED
    if name in OF_DECODER or make is not DroppingDecoder
]


@pytest.mark.parametrize(("name", "make"), CASES)
def test_it_is_refused_by_name(name, make):
    with pytest.raises(RuntimeError, match=REFUSED[make]):
        CALLS[name](wrapped(make()), X)


@pytest.mark.parametrize("name", CALLS)
def test_a_function_of_its_row_is_not(name):
    vae = wrapped(Model())
    before = torch.random.get_rng_state()
    CALLS[name](vae, X)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("make", [Model, Dropping])
def test_a_frozen_model_is_taken_at_its_word(make):
    vae = wrapped(make())
    with vf.frozen(vae):
        vf.geometry.frobenius_norm(vae, X)


def test_it_costs_three_passes_of_three_rows():
    """Of encode one, beside what is known of two rows; of decode two."""
    model, passes = Model(), []
    model.e.register_forward_hook(lambda _, given, out: passes.append(("encode", len(out))))
    model.d.register_forward_hook(lambda _, given, out: passes.append(("decode", len(out))))
    vae = wrapped(model)
    vf.geometry.frobenius_norm(vae, X, of="decoder")
    assert passes.count(("encode", 3)) == 1
    assert passes.count(("decode", 3)) == 2

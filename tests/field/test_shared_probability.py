"""Elsewhere a margin took a probability that had been computed for another radius, and promised
1.27 where the truth abstains. Here the probability carries what it was computed for (r, samples,
alpha, seed, the model, x), and a margin for anything else refuses it in one line.
"""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

import vaefast as vf

X = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def build(seed=0, **options):
    return vf.models.MLPVAE((1, 4, 4), hidden=(8,), latent=3, seed=seed, **options).eval()


VAE = build()
GIVEN = {"samples": 200, "alpha": 0.01, "seed": 3}
FOUND = vf.certify.robust_probability(VAE, X, 5.0, **GIVEN)


def test_it_is_taken_for_what_it_was_computed_for():
    own = vf.certify.margin(VAE, X, 5.0, **GIVEN)
    for options in ({}, GIVEN, {"seed": 3}):
        shared = vf.certify.margin(VAE, X, 5.0, probability=FOUND, **options)
        assert torch.equal(shared.margin, own.margin)
    assert torch.equal(FOUND.r, torch.full((4,), 5.0))
    assert (FOUND.samples, FOUND.alpha, FOUND.seed) == (200, 0.01, 3)


def trained_on():
    vae = copy.deepcopy(VAE)
    vf.training.fit(vae, X, epochs=1, progress=False)
    return vae


def scaled(part):
    vae = copy.deepcopy(VAE)
    with torch.no_grad():
        next(iter(vae.get_submodule(part).parameters())).mul_(1.001)
    return vae


OTHERS = {
    "r": ({"r": 0.01}, "with r = 5, the margin is asked for with r = 0.01 in row 0; pass the same"),
    "r in one row": ({"r": torch.tensor([5.0, 5, 5, 4])}, "r = 4 in row 3"),
    "samples": ({"samples": 1000}, "with samples = 200, the margin .* samples = 1000; pass"),
    "alpha": ({"alpha": 0.001}, "alpha = 0.01"),
    "seed": ({"seed": 0}, "seed = 3"),
    "x": ({"x": X.flip(0)}, "computed for another x; compute it again"),
    "an entry of x": ({"x": X.index_fill(3, torch.tensor([3]), 0.5)}, "another x"),
    "trained": ({"vae": trained_on()}, "computed for another model; compute it again"),
    "another": ({"vae": build(seed=1)}, "another model"),
    "a scaled encoder": ({"vae": scaled("encoder")}, "another model"),
    "a scaled decoder": ({"vae": scaled("decoder")}, "another model"),
    "another likelihood": ({"vae": build(likelihood="clamped_bernoulli")}, "another model"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_it_is_refused_for_anything_else(name):
    change, words = OTHERS[name]
    arguments = {"vae": VAE, "x": X, "r": 5.0, **change}
    with pytest.raises(ValueError, match=words) as caught:
        vf.certify.margin(**arguments, probability=FOUND)
    assert "\n" not in str(caught.value)


def test_the_conditions_count_too():
    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.d = nn.Linear(6, 2), nn.Linear(4, 4)

        def encode(self, x, context):
            h = self.e(torch.cat([x, context], 1))
            return h, torch.zeros_like(h)

        def decode(self, z, context):
            return self.d(torch.cat([z, context], 1))

    torch.manual_seed(0)
    vae = vf.as_vae(Conditional().eval(), likelihood="gaussian").eval()
    x, context = torch.rand(3, 4), torch.rand(3, 2)
    found = vf.certify.robust_probability(vae, x, 3.0, context=context)
    vf.certify.margin(vae, x, 3.0, context=context, probability=found)
    with pytest.raises(ValueError, match="another x"):
        vf.certify.margin(vae, x, 3.0, context=context.flip(0), probability=found)


def test_the_same_model_in_another_precision_or_copied_is_the_same():
    wide = copy.deepcopy(VAE).double()
    found = vf.certify.robust_probability(wide, X.double(), 5.0)
    result = vf.certify.margin(copy.deepcopy(VAE), X.clone(), 5.0, probability=found)
    assert result.margin.isfinite().all()


def test_a_saved_result_can_be_used(tmp_path):
    torch.save(dataclasses.asdict(FOUND), tmp_path / "found.pt")
    again = vf.certify.RobustProbability(**torch.load(tmp_path / "found.pt"))
    shared = vf.certify.margin(VAE, X, 5.0, probability=again)
    assert torch.equal(shared.margin, vf.certify.margin(VAE, X, 5.0, **GIVEN).margin)


def test_rows_without_a_radius_are_compared_as_such():
    r = torch.tensor([5.0, math.nan, 5, 5])
    found = vf.certify.robust_probability(VAE, X, r)
    assert vf.certify.margin(VAE, X, r, probability=found).margin[1].isnan()
    with pytest.raises(ValueError, match="in row 1"):
        vf.certify.margin(VAE, X, 5.0, probability=found)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((torch.tensor([11]), 10, 0.001), ValueError, "hits must be between 0 and samples = 10"),
        ((torch.tensor([-1, 3]), 10, 0.001), ValueError, "got values from -1 to 3"),
        ((torch.tensor([5]), 10, 5), ValueError, r"alpha must lie in \(0, 1\), got 5"),
        ((torch.tensor([5]), 10, -0.1), ValueError, "alpha must lie in"),
        ((torch.tensor([5]), 10, math.nan), ValueError, "alpha must be a number, got nan"),
        ((torch.tensor([5.0]), 10, 0.1), TypeError, "hits must be int64, got float32"),
        ((torch.tensor([True]), 10, 0.1), TypeError, "hits must be int64, got bool"),
        ((5, 10, 0.1), TypeError, r"hits must be a torch\.Tensor, got int"),
        ((torch.tensor([5]), 10.0, 0.1), TypeError, "samples must be a whole number"),
        ((torch.tensor([0]), 0, 0.1), ValueError, "samples must be at least 1"),
    ],
)
def test_clopper_pearson_takes_what_has_a_meaning(arguments, error, words):
    with pytest.raises(error, match=words) as caught:
        vf.certify.clopper_pearson(*arguments)
    assert "\n" not in str(caught.value)

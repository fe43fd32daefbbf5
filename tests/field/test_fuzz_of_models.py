"""A fused path that is wrong for one spelling of one layer gives numbers that nobody doubts.

Random small models, each public function against the module and plain autograd in float64. That the
fuzz would notice is shown by planting faults into the lowering, with its own comparison off.
"""

import os

import pytest
import torch
from random_models import made

import vaefast as vf
from vaefast import philox
from vaefast.models import traces
from vaefast.models.rules import RULES

COUNT = int(os.environ.get("VAEFAST_FUZZ", "80")) // 2  # `make proofs` takes 500
EVERY = 10  # models of one test
SAMPLES = 16


def rows_of(model):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, *model.event, generator=generator, dtype=torch.float64)


def jacobians(function, points):
    """[b, m, n] of a function [b, ...] -> [b, m], by backward passes."""
    rows = [
        torch.autograd.functional.jacobian(lambda p: function(p[None])[0], point)
        for point in points
    ]
    return torch.stack([row.flatten(1) for row in rows])


def near(found, expected):
    return torch.allclose(found, expected, rtol=1e-9, atol=1e-11)


def norms(model, vae, x):
    mean, std = (t.detach() for t in model.posterior(x))
    of_mean = jacobians(lambda p: model.posterior(p)[0], x)
    of_pixels = jacobians(model.pixels, mean)
    whole = jacobians(lambda p: model.pixels(model.posterior(p)[0]), x)
    frobenius = vf.geometry.frobenius_norm
    yield near(frobenius(vae, x), of_mean.flatten(1).norm(dim=1))
    yield near(frobenius(vae, x, whiten=True), (of_mean / std[..., None]).flatten(1).norm(dim=1))
    yield near(frobenius(vae, x, of="reconstruction"), whole.flatten(1).norm(dim=1))
    largest = torch.linalg.svdvals(of_pixels)[:, 0]
    upper = vf.geometry.spectral_norm(vae, x, of="decoder")
    yield bool((upper >= largest * (1 - 1e-12)).all() and (upper <= largest * (1 + 1e-6)).all())


def certificates(model, vae, x):
    mean, std = (t.detach() for t in model.posterior(x))
    noise = torch.stack(
        [
            philox.normal(
                mean.shape[1],
                seed=3,
                index=torch.full((SAMPLES,), row),
                step=torch.arange(SAMPLES),
                use=philox.Use.LATENT,
                dtype=torch.float64,
            )
            for row in range(len(x))
        ]
    )
    distances = torch.stack(
        [
            (model.pixels(mean[row] + std[row] * noise[row]) - model.pixels(mean[[row]])).norm(
                dim=1
            )
            for row in range(len(x))
        ]
    ).detach()
    ordered = distances.sort(1).values
    widest = ordered.diff(dim=1).argmax(1, keepdim=True)  # dead units make many distances equal
    r = 0.5 * (ordered.gather(1, widest) + ordered.gather(1, widest + 1))[:, 0]
    found = vf.certify.robust_probability(vae, x, r, samples=SAMPLES, seed=3)
    yield torch.equal(found.hits, (distances <= r[:, None]).sum(1))


def attacks(model, vae, x):
    def skl(at):
        (mean, std), (ref, ref_std) = model.posterior(at), model.posterior(x)
        ratio = (std / ref_std).square()
        shift = (mean - ref).square() * (std**-2 + ref_std**-2)
        return (0.25 * (ratio + 1 / ratio - 2) + 0.25 * shift).sum(1)

    options = {"eps": 0.05, "alpha": 0.02, "steps": 2, "low": -9.0, "high": 9.0}
    found = vf.attacks.latent(vae, x, divergence="skl", **options)
    yield torch.allclose(found.objective, skl(found.x_adv), rtol=1e-6, atol=1e-12)
    start = vf.attacks.latent(vae, x, divergence="skl", **options | {"steps": 1})
    yield bool((found.history.amax(0) >= start.history.amax(0) - 1e-12).all())


def chains(model, vae, x):
    images = x.flatten(1)

    def potential(z):
        out = model.pixels(z)
        if model.likelihood == "gaussian":
            log_p = -0.5 * (images - out).square() - 0.5 * torch.log(torch.tensor(2 * torch.pi))
        else:
            log_p = images * out.log() + (1 - images) * torch.log1p(-out)
        prior = 0.5 * z.square() + 0.5 * torch.log(torch.tensor(2 * torch.pi)).double()
        return prior.sum(1) - log_p.sum(1)

    options = {"warmup": 0, "steps": 2, "adapt": None, "step_size": 0.05, "leapfrog": 3}
    found = vf.hmc.sample(vae, x, **options)
    yield torch.allclose(found.energy[:, 0, -1], potential(found.z[:, 0, -1]), rtol=1e-6)
    yield bool((found.accept_rate > 0.49).all())  # a wrong gradient loses energy


PARTS = (norms, certificates, attacks, chains)


def failures(seed):
    """Which of the public functions' results are not the module's."""
    model, vae = made(seed)
    x = rows_of(model)
    return [
        f"seed {seed}: {part.__name__}, {place}"
        for part in PARTS
        for place, right in enumerate(part(model, vae, x))
        if not right
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(0, COUNT, EVERY))
def test_public_functions_give_what_the_module_and_autograd_give(first):
    assert not [line for seed in range(first, first + EVERY) for line in failures(seed)]


def test_most_of_them_run_in_the_fused_ops():
    fused = {False: 0, True: 0}  # by whether it is convolutional
    for seed in range(60):
        model, vae = made(seed)
        found = "fused" in str(vf.explain(vae, rows_of(model)).encoder_mean)
        fused[seed % 3 == 2] += found
    assert 10 <= fused[False] < 40  # and some do not
    assert fused[True] >= 15, fused


PLAIN = dict(RULES)


def without_sum(a, b, **how):
    """The first of two values; a value and a constant are added as ever."""
    return a if type(a) is type(b) else PLAIN["add"](a, b, **how)


PLANTED = {
    "clamps are dropped": {name: lambda v, *_: v for name in ("clamp", "hardtanh")},
    "batch norm is dropped": {"native_batch_norm": lambda v, *_: [v, None, None]},
    "another slope": {"leaky_relu": lambda v, _=0.0: PLAIN["leaky_relu"](v, 0.5)},
    "one activation for another": {"silu": PLAIN["mish"]},
    "a residual sum is forgotten": {"add": lambda a, b, **how: without_sum(a, b, **how)},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fault", PLANTED)
def test_planted_faults_are_found(fault, monkeypatch):
    monkeypatch.setattr(traces, "difference", lambda *_: "")
    monkeypatch.setattr(traces, "agree", lambda *_: True)
    for name, rule in PLANTED[fault].items():
        assert name in RULES
        monkeypatch.setitem(RULES, name, rule)
    assert any(failures(seed) for seed in range(100))

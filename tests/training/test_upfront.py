"""Robustness specified before training: chosen constants, kept promises, what cannot be had."""

import math
import warnings

import pytest
import torch
from scipy import stats

import vaefast as vf
from vaefast.models import LipschitzVAE
from vaefast.training import fit
from vaefast.training.upfront import choose

RADIUS, R = 0.4, 3.0
KINDS = {
    "all free": {},
    "a and b given": {"a": 1.0, "b": 2.0},
    "b given": {"b": 1.5},
    "a given": {"a": 0.5},
    "ball given": {"std_norm": 0.5},
    "fixed": {"fixed_std": 0.2},
    "gaussian": {"likelihood": "gaussian"},
}


def build(**options):
    return LipschitzVAE((1, 6, 6), hidden=(16,), latent=3, **options)


@pytest.fixture
def x():
    return torch.rand(60, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def margins(vae, x, r, variant=None):
    return vf.certify.margin(vae, x, r, method="lipschitz", variant=variant).margin


@pytest.mark.parametrize("kind", KINDS)
def test_every_input_has_the_radius_after_training(kind, x):
    vae = build(**KINDS[kind])
    given = {name: v for name, v in KINDS[kind].items() if name in ("a", "b", "std_norm")}
    fit(vae, x, epochs=2, lr=1e-2, progress=False, certified_radius=RADIUS, r=R)
    assert {name: getattr(vae.constants, name) for name in given} == given
    other = torch.rand(40, 1, 6, 6)  # of which training saw nothing
    for model in (vae.export(), vae.eval()):
        for variant in (None, "barrett2022"):
            found = margins(model, torch.cat([x, other]), R, variant)
            assert (found >= RADIUS).all()
    if kind == "all free":
        assert found.min() < 1.1 * RADIUS  # no constant is smaller than it must be


def test_what_is_chosen_is_the_most_that_fits():
    vae = build()
    found = choose(vae, RADIUS, R)
    assert found.b == pytest.approx(4 * found.a)
    noise = 2 * (found.a * found.std_norm) ** 2
    move = (found.a * found.b * RADIUS) ** 2
    assert move + noise == pytest.approx(R**2 / 2, rel=1e-3)  # T1 with all of it spent
    assert noise == pytest.approx(R**2 / 8, rel=0.02)
    wider = choose(build(a=found.a, b=found.b / 2), RADIUS, R)
    assert wider.std_norm > found.std_norm
    assert choose(vae, RADIUS / 2, R).b > found.b


def test_an_attack_inside_the_radius_does_not_win(x):
    vae = build()
    fit(vae, x, epochs=3, lr=1e-2, progress=False, certified_radius=RADIUS, r=R)
    plain = vae.export()
    attack = vf.attacks.max_damage(plain, x[:8], eps=RADIUS, norm="l2", restarts=3, steps=20)
    centre = plain.reconstruct(x[:8]).flatten(1)
    mean, std = plain.posterior(attack.x_adv)
    z = mean[:, None] + std[:, None] * torch.randn(8, 1000, 3)
    away = plain.g(z.flatten(0, 1)).view(8, 1000, -1) - centre[:, None]
    hits = (away.norm(dim=2) <= R).sum(1)
    assert (stats.binom.cdf(hits.numpy(), 1000, 0.5) > 1e-6).all()


@pytest.mark.parametrize(
    ("options", "radius", "best"),
    [
        ({"a": 2.0, "b": 3.0}, 1.0, R / (2 * 3)),
        ({"a": 2.0, "b": 3.0, "std_norm": 0.4}, 1.0, None),
        ({"a": 5.0, "std_norm": 1.0}, 0.1, 0.0),
        ({"a": 2.0, "b": 3.0, "fixed_std": 0.1}, 0.6, None),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_best(options, radius, best, x):
    with pytest.raises(ValueError, match="cannot be had with") as refused:
        fit(build(**options), x, epochs=1, progress=False, certified_radius=radius, r=R)
    message = str(refused.value)
    assert "\n" not in message
    said = float(message.split("the best is ")[1].split(";")[0])
    if best is not None:
        assert said == pytest.approx(best, rel=0.02)
    if said > 0:
        fit(build(**options), x, epochs=1, progress=False, certified_radius=said, r=R)
        with pytest.raises(ValueError, match="cannot be had"):
            choose(build(**options), said + 2e-4, R)


def test_a_refused_model_is_as_it_was(x):
    vae = build(a=2.0, b=3.0)
    before = vae.reconstruct(x)
    with pytest.raises(ValueError, match="cannot be had"):
        fit(vae, x, epochs=1, progress=False, certified_radius=9.0, r=R)
    assert torch.equal(vae.reconstruct(x), before)


def test_a_useless_model_is_said_to_be_one(x):
    with pytest.warns(UserWarning, match=r"needs a·b = 0\.\d+: reconstructions differ by that"):
        fit(build(), x, epochs=1, progress=False, certified_radius=50.0, r=R)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(build(), x, epochs=1, progress=False, certified_radius=0.1, r=R)


def test_without_a_radius_nothing_is_chosen(x):
    vae = build(b=2.0)
    fit(vae, x, epochs=1, progress=False)
    assert vae.constants == (5.0, 2.0, 5.0, math.inf)


def test_a_run_goes_on_with_the_same_radius_only(x, tmp_path):
    file = tmp_path / "run.ckpt"
    promise = {"certified_radius": RADIUS, "r": R, "progress": False}
    whole, parts = build(), build()
    fit(whole, x, epochs=3, **promise)
    fit(parts, x, epochs=1, checkpoint=file, **promise)
    again = build()
    history = fit(again, x, epochs=3, checkpoint=file, **promise)
    assert history.resumed > 0
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), again.parameters()))
    with pytest.raises(ValueError, match=r"run with certified_radius 0\.4, this one has 0\.5"):
        fit(build(), x, epochs=3, checkpoint=file, **promise | {"certified_radius": 0.5})
    with pytest.raises(ValueError, match="certified_radius"):
        fit(build(), x, epochs=3, checkpoint=file, progress=False)
    other = tmp_path / "other.ckpt"
    fit(build(a=1.0), x, epochs=1, checkpoint=other, progress=False)
    with pytest.raises(ValueError, match=r"run with a 1\.0, this one has 2\.0"):
        fit(build(a=2.0), x, epochs=1, checkpoint=other, progress=False)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"certified_radius": 1.0}, ValueError, "certified_radius and r go together; pass r too"),
        ({"r": 1.0}, ValueError, "pass certified_radius too"),
        ({"certified_radius": -1.0, "r": 1.0}, ValueError, "must be positive and finite, got -1"),
        ({"certified_radius": "1", "r": 1.0}, TypeError, "certified_radius must be"),
    ],
)
def test_mistakes_are_named(options, kind, message, x):
    with pytest.raises(kind, match=message):
        fit(build(), x, epochs=1, progress=False, **options)
    mlp = vf.models.MLPVAE((1, 6, 6), (8,), 2)
    with pytest.raises(TypeError, match=r"needs a vaefast\.models\.LipschitzVAE, got MLPVAE"):
        fit(mlp, x, epochs=1, progress=False, certified_radius=0.1, r=1.0)

"""Lipschitz VAEs: their layers, their constants, what they export and how they are kept."""

import math

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.models import LipschitzVAE, lipschitz_constants
from vaefast.models.lipschitz.layers import BallOfStd, BjorckLinear, bjorck


def small(**options):
    how = {"hidden": (16, 12), "latent": 4, **options}
    return LipschitzVAE((1, 5, 4), 1.5, 3.0, **how)


def learned(**options):
    return small(c=0.7, **options)


KINDS = {
    "learned": learned,
    "ball": lambda **o: learned(std_norm=0.3, **o),
    "fixed": lambda **o: small(fixed_std=0.2, **o),
    "gaussian": lambda **o: learned(likelihood="gaussian", **o),
}


@pytest.fixture
def x():
    return torch.rand(6, 1, 5, 4, generator=torch.Generator().manual_seed(2))


def shaken(vae, size=0.3, seed=0):
    """As after some training: raw weights that are no longer orthonormal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in vae.parameters():
            p += size * torch.randn(p.shape, generator=generator) / math.sqrt(p.shape[-1])
    return vae


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (5, 5)])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_bjorck_drives_singular_values_to_one(order, shape):
    w = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    w = 1.2 * w / torch.linalg.matrix_norm(w, 2)
    found = bjorck(w, order, 60)
    assert torch.allclose(torch.linalg.svdvals(found), torch.ones(min(shape)).double())
    u, _, vh = torch.linalg.svd(w, full_matrices=False)
    assert torch.allclose(found, u @ vh)  # the nearest orthonormal matrix


def test_one_iteration_maps_singular_values_as_the_formula_says():
    """mathematics.md 4.5: order 1 is 1.5s − 0.5s³, order 2 overshoots (f(1.2) = 1.023), 3 not."""
    s = torch.linspace(0, 2, 201).double()
    one = bjorck(torch.diag(s), 1, 1).diagonal()
    assert torch.allclose(one, 1.5 * s - 0.5 * s**3)
    assert (one.abs() <= 1 + 1e-12).all()
    assert bjorck(torch.diag(torch.tensor([1.2])), 2, 1).item() == pytest.approx(1.023, abs=5e-4)
    near = s[s <= 1.5]
    assert (bjorck(torch.diag(near), 3, 1).diagonal() <= 1 + 1e-12).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_maps_keep_to_the_constants_that_were_set(kind, x):
    vae = KINDS[kind]().double().eval()
    x, y = x.double(), (x + 0.1 * torch.randn(x.shape)).double()
    z = torch.randn(6, 4).double()
    far, near = torch.randn(6, 4).double(), 1e-3 * torch.randn(6, 4).double()
    kept = vae.constants
    for moved in (z + near, far):
        rate = (vae.g(z) - vae.g(moved)).flatten(1).norm(dim=1) / (z - moved).norm(dim=1)
        assert (rate <= kept.a * (1 + 1e-6)).all()
    (mean, std), (mean_y, std_y) = vae.posterior(x), vae.posterior(y)
    distance = (x - y).flatten(1).norm(dim=1)
    assert ((mean - mean_y).norm(dim=1) <= kept.b * distance * (1 + 1e-6)).all()
    assert ((std - std_y).norm(dim=1) <= kept.c * distance * (1 + 1e-6) + 1e-15).all()
    assert (std.norm(dim=1) <= kept.std_norm * (1 + 1e-6)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_computed_constants_of_an_export_never_exceed_those_set(kind, order, x):
    vae = shaken(KINDS[kind](order=order))
    computed, wanted = lipschitz_constants(vae.export(), x), vae.constants
    for name, found, limit in zip(computed._fields, computed, wanted, strict=True):
        assert found <= limit * (1 + 2e-7), name  # the radius and σ are float32
        if name in ("a", "b"):
            assert found > 0.99 * limit, "all singular values are 1 again"


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("factor", [1.7, 40.0, 1e9])
def test_weights_far_from_orthonormal_do_no_harm(order, factor, x):
    """Elsewhere Björck's iteration diverges above √3, and the loss becomes infinite."""
    vae = shaken(learned(order=order)).eval()
    with torch.no_grad():
        for layer in vae.modules():
            if isinstance(layer, BjorckLinear):
                layer.weight *= factor
    for model in (vae, vae.export()):
        found, limit = lipschitz_constants(model, x), vae.constants
        assert all(value <= most * (1 + 1e-5) for value, most in zip(found[:3], limit[:3]))
        assert found.b > 0.5 * limit.b


def test_training_iterations_alone_are_not_what_is_certified(x):
    """Far from orthonormal, order 2 exceeds its constant: the computed norm says so."""
    vae = learned(order=2, iterations=1).eval()
    with torch.no_grad():
        for layer in vae.modules():
            if isinstance(layer, BjorckLinear):
                layer.weight *= 1.2
    assert lipschitz_constants(vae, x).b > 1.05 * vae.constants.b
    assert lipschitz_constants(vae.export(), x).b <= vae.constants.b


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_is_the_model_and_lowers(kind, x):
    vae = KINDS[kind]().eval()
    plain = vae.export()
    assert not isinstance(plain, vf.models.LipschitzVAE)
    for part in (plain.encoder.mean, plain.decoder):
        assert isinstance(part, nn.Sequential)
        assert not any(isinstance(layer, BjorckLinear) for layer in part)
    for mine, other in zip(vae.posterior(x), plain.posterior(x), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vae.reconstruct(x), plain.reconstruct(x), rtol=1e-4, atol=1e-5)
    said = vf.explain(plain, x)
    assert "fused" in str(said.encoder_mean)
    assert "maxmin maxmin identity" in str(said.decoder)
    if kind in ("learned", "gaussian"):
        assert "maxmin maxmin sigmoid" in str(said.encoder_logvar)
    if kind == "ball":
        assert "BallOfStd" in str(said.encoder_logvar)


def test_an_export_shares_nothing_with_the_model(x):
    vae = learned()
    plain = vae.export()
    before = plain.reconstruct(x)
    shaken(vae)
    assert torch.equal(plain.reconstruct(x), before)


def test_projected_weights_are_orthonormal(x):
    vae = shaken(learned(std_norm=0.3)).project_()
    for layer in vae.modules():
        if isinstance(layer, BjorckLinear):
            values = torch.linalg.svdvals(layer.weight.detach().double())
            assert torch.allclose(values, torch.ones_like(values), atol=1e-5)
            assert values.max() <= 1.0
    for computed, wanted in zip(lipschitz_constants(vae.eval(), x), vae.constants, strict=True):
        assert computed <= wanted * (1 + 1e-5)


def test_constants_can_be_changed(x):
    vae = learned()
    assert "std_norm" in vae.free
    assert math.isinf(vae.constants.std_norm)
    assert LipschitzVAE((20,), b=2.0, hidden=(4,)).free == ("a", "c", "std_norm")
    vae.set_constants(a=0.5, std_norm=0.1)
    assert vae.constants == (0.5, 3.0, 0.7, 0.1)
    assert isinstance(vae.encoder.logvar[-2], BallOfStd)
    assert (vae.posterior(x)[1].norm(dim=1) <= 0.1 * (1 + 1e-6)).all()
    assert lipschitz_constants(vae.export(), x).a <= 0.5
    fixed = small(fixed_std=0.2)
    assert fixed.constants.std_norm == pytest.approx(0.4)
    fixed.set_constants(std_norm=0.1)
    assert fixed.posterior(x)[1][0].tolist() == pytest.approx([0.05] * 4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_is_the_same(kind, x, tmp_path):
    vae = shaken(KINDS[kind]()).eval()
    vae.set_constants(a=0.9)
    vf.models.save(vae, tmp_path / "model.safetensors")
    again = vf.models.load(tmp_path / "model.safetensors")
    assert again.constants == pytest.approx(vae.constants)
    assert torch.equal(again.reconstruct(x), vae.reconstruct(x))
    assert torch.equal(again.posterior(x)[1], vae.posterior(x)[1])


def test_the_same_seed_gives_the_same_weights(x):
    assert torch.equal(small().reconstruct(x), small().reconstruct(x))
    assert not torch.equal(small().reconstruct(x), small(seed=1).reconstruct(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"a": 0.0}, "a must be positive and finite, got 0"),
        ({"hidden": (7,)}, "hidden must be even widths, which MaxMin pairs, got 7"),
        ({"order": 4}, "order must be 1, 2 or 3, got 4"),
        ({"fixed_std": 0.1, "c": 1.0}, "fixed_std has no constant and no ball; leave out c"),
        ({"fixed_std": 0.1, "std_norm": 1.0}, "leave out c and std_norm"),
        ({"likelihood": "poisson"}, "likelihood must be"),
        ({"iterations": 0}, "iterations must be at least 1"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        LipschitzVAE((20,), **options)
    with pytest.raises(ValueError, match="c must be left out where σ is fixed"):
        small(fixed_std=0.2).set_constants(c=1.0)


def test_weights_that_are_not_finite_are_refused(x):
    vae = learned()
    with torch.no_grad():
        vae.decoder[0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="weight is not finite"):
        vae.export()

"""Damage along the eigenvectors, against the published loop written out."""

import pytest
import torch

import vaefast as vf
from vaefast.attacks import damage_curve
from vaefast.geometry import pullback_spectrum


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize("of", ["encoder", "fisher", "reconstruction"])
def test_it_is_the_loop_over_directions_and_scales(make_vae, make_images, of, opaque):
    vae, x = make_vae(opaque=opaque), make_images(3)
    curve = damage_curve(vae, x, of=of, directions=2)
    assert torch.equal(curve.scales, torch.logspace(-1, 1, 40, dtype=torch.float64))
    assert list(curve.damage.shape) == [3, 2, 40]
    own = pullback_spectrum(vae, x, of=of, vectors=2)
    torch.testing.assert_close(curve.lengths, own.eigenvalues[:, :2])
    for k in range(2):
        for s in (0, 17, 39):
            step = own.eigenvalues[:, k].view(-1, 1, 1, 1) * own.vectors[:, k]
            with torch.no_grad():
                image = vae.reconstruct(x + curve.scales[s] * step)
            damage = (image - x).square().flatten(1).mean(1)
            torch.testing.assert_close(curve.damage[:, k, s], damage, rtol=1e-6, atol=1e-12)


def test_steps_and_what_they_are_measured_from(make_vae, make_images):
    vae, x = make_vae(), make_images(3)
    own = pullback_spectrum(vae, x)
    scales = torch.tensor([0.0, 0.5])
    unit = damage_curve(vae, x, directions=1, scales=scales, step="unit")
    assert torch.equal(unit.lengths, torch.ones(3, 1).double())
    root = damage_curve(vae, x, directions=1, scales=scales, step="singular_value")
    torch.testing.assert_close(root.lengths, own.eigenvalues[:, :1].sqrt())
    clean = damage_curve(
        vae, x, directions=1, scales=scales, step="unit", measured_from="reconstruction"
    )
    assert torch.equal(clean.damage[:, :, 0], torch.zeros(3, 1).double())
    assert (clean.damage[:, :, 1] > 0).all()
    both = damage_curve(vae, x, directions=1, scales=scales, step="unit", both_signs=True)
    assert (both.damage >= unit.damage).all()


def test_nan_rows_chunks_and_empty_batches(make_vae, make_images):
    vae, x = make_vae(), make_images(4)
    whole = damage_curve(vae, x, directions=2).damage
    x[1, 0, 0, 0] = torch.nan
    vf.set_memory(20_000)
    cut = damage_curve(vae, x, directions=2).damage
    assert cut[1].isnan().all()
    torch.testing.assert_close(cut[[0, 2, 3]], whole[[0, 2, 3]])
    assert list(damage_curve(vae, x[:0], directions=2).damage.shape) == [0, 2, 40]


def test_refuses(make_vae, make_images):
    vae, x = make_vae(), make_images(2)
    with pytest.raises(ValueError, match="step must be one of 'eigenvalue', 'singular_value'"):
        damage_curve(vae, x, step="length")
    with pytest.raises(ValueError, match=r"scales must be \[S\] finite numbers"):
        damage_curve(vae, x, scales=torch.tensor([1.0, torch.inf]))
    with pytest.raises(ValueError, match="vectors must be at most 3, got 5"):
        damage_curve(vae, x)
    with pytest.raises(TypeError, match="damage_curve has no argument 'space'"):
        damage_curve(vae, x, space="output")

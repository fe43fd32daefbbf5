"""The local certificate of convolutional encoders."""

import pytest
import torch

import vaefast as vf
from vaefast.certify import local
from vaefast.certify.local import Posterior, form_of, local_margins
from vaefast.certify.tolerance import tolerates
from vaefast.functional import displacement
from vaefast.functional.displacement import FORMS
from vaefast.geometry.norms import spectral
from vaefast.models.prepare import prepare


def images(side, n=2):
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", FORMS)
def test_a_margin_is_a_radius_that_was_evaluated_and_held(form):
    vae = vf.models.ConvVAE((1, 8, 8), channels=4, latent=3)
    prepared = prepare(vae, images(8))
    p = torch.tensor([0.99, 0.9]).double()
    margin = local_margins(prepared, p, form)
    first_order = torch.special.ndtri(p) / spectral(prepared, whiten=True)
    assert bool((margin > 0).all())
    assert bool((margin <= first_order).all())
    posterior = Posterior(prepared)
    assert bool(tolerates(*posterior.moved(margin, form), p).all())
    assert not bool(tolerates(*posterior.moved(1.5 * first_order, form), p).any())


def test_of_images_the_smaller_form_is_the_multiplier_one():
    vae = vf.models.ConvVAE((1, 8, 8), channels=4, latent=3)
    prepared, p = prepare(vae, images(8)), torch.tensor([0.99, 0.9]).double()
    affine, multiplier, smaller, joint = (local_margins(prepared, p, form) for form in FORMS)
    assert torch.equal(smaller, multiplier)
    assert bool((smaller > 1.2 * affine).all())
    assert bool((joint > 1.1 * smaller).all())


def test_the_published_encoder_by_the_multiplier_form(monkeypatch):
    monkeypatch.setitem(local.IMAGE_STEPS, "multiplier", 1)
    monkeypatch.setitem(local.IMAGE_START, "multiplier", 0.05)
    prepared = prepare(vf.models.ConvVAE((1, 28, 28)), images(28, 1))
    assert form_of(prepared, "smaller")[0] == "multiplier"
    assert local_margins(prepared, torch.tensor([0.99]).double(), "smaller").item() > 0


def test_results_say_which_form_they_rest_on(monkeypatch):
    vae, x = vf.models.ConvVAE((1, 8, 8), channels=4, latent=3), images(8)
    options = {"method": "local", "samples": 200}
    found = vf.certify.margin(vae, x, 9.0, **options)
    assert (found.form, found.why_form) == (
        "multiplier",
        "of convolutional encoders it is always the smaller one",
    )
    asked = vf.certify.margin(vae, x, 9.0, form="affine", **options)
    assert (asked.form, asked.why_form) == ("affine", "")
    both = vf.certify.best(found, asked)
    assert both.form == "multiplier, affine"
    assert both.why_form == found.why_form
    monkeypatch.setattr(displacement, "GRAMS", 20)
    alone = vf.certify.margin(vae, x, 9.0, **options)
    assert alone.form == "affine"
    assert "at most 20 features in each layer" in alone.why_form
    with pytest.raises(ValueError, match=r'at most 20 features .* form="affine" takes all'):
        vf.certify.margin(vae, x, 9.0, form="joint", **options)
    mlp = vf.models.MLPVAE((1, 8, 8), (6,), 2)
    assert vf.certify.margin(mlp, x, 9.0, **options).form == "smaller"
    assert vf.certify.margin(mlp, x, 9.0, method="whitened").form == ""

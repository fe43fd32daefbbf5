"""What a Lipschitz VAE exports, saved and loaded: the same model, constants and certificates."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.models import LipschitzConvVAE, LipschitzVAE, lipschitz_constants
from vaefast.models.lipschitz import convolutions

SMALL = {"hidden": (12, 8), "latent": 3}
MODELS = {
    "ball": lambda: LipschitzVAE((1, 8, 8), 2.0, 1.5, 0.5, std_norm=0.4, **SMALL),
    "no ball": lambda: LipschitzVAE((1, 8, 8), **SMALL),
    "fixed": lambda: LipschitzVAE((1, 8, 8), fixed_std=0.3, **SMALL),
    "gaussian": lambda: LipschitzVAE((1, 8, 8), likelihood="gaussian", obs_std=0.2, **SMALL),
    "float64": lambda: LipschitzVAE((1, 8, 8), std_norm=0.4, **SMALL).double(),
    "convolutional": lambda: LipschitzConvVAE((1, 8, 8), hidden=(4, 6), latent=3, std_norm=0.4),
}


@pytest.fixture(params=MODELS)
def exported(request, monkeypatch):
    """With torch's convolutions in place of deel-torchlip's; bounds are computed."""
    plain = {"SpectralConv2d": nn.Conv2d, "SpectralConvTranspose2d": nn.ConvTranspose2d}
    monkeypatch.setattr(convolutions, "_torchlip", lambda: SimpleNamespace(**plain))
    return MODELS[request.param]().export()


def test_a_saved_export_comes_back_with_its_constants_and_certificates(exported, tmp_path):
    vf.models.save(exported, tmp_path / "m")
    back = vf.models.load(tmp_path / "m")
    assert type(back) is type(exported)
    assert back.config() == exported.config()
    assert back.latent_dim == exported.latent_dim
    dtype = next(exported.parameters()).dtype
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert torch.equal(back.reconstruct(x), exported.reconstruct(x))
    assert torch.equal(back.posterior(x)[1], exported.posterior(x)[1])
    assert lipschitz_constants(back, x) == lipschitz_constants(exported, x)
    options = {"method": "lipschitz"}
    margins = [vf.certify.margin(vae, x, 30.0, **options).margin for vae in (exported, back)]
    assert torch.equal(*margins)
    assert bool((margins[0] > 0).any())


def test_an_export_keeps_nothing_of_the_model():
    """Training goes on without it."""
    vae = LipschitzVAE((1, 8, 8), std_norm=0.4, **SMALL)
    plain = vae.export()
    x = torch.rand(4, 1, 8, 8)
    before = plain.posterior(x)[1]
    vae.set_constants(std_norm=0.01)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.fill_(0.5)
    assert torch.equal(plain.posterior(x)[1], before)
    assert not any(p.is_meta for p in plain.parameters())
    assert all(p.requires_grad for p in plain.parameters())


def test_an_export_that_was_changed_is_refused(exported, tmp_path):
    exported.decoder.append(nn.Identity())
    with pytest.raises(TypeError, match="as it was built"):
        vf.models.save(exported, tmp_path / "m")

"""The convolutional Lipschitz VAE, where deel-torchlip is installed, and what is said where not."""

import copy

import pytest
import torch

import vaefast as vf
from vaefast.models import LipschitzConvVAE, lipschitz_constants
from vaefast.models.lipschitz import convolutions


def test_what_to_install_is_said(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(convolutions.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"needs deel-torchlip; pip install 'vaefast\[lipschitz"):
        LipschitzConvVAE((1, 8, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event_shape": (1, 10, 8)}, "sides that are multiples of 4 from 8, got"),
        ({"event_shape": (64,)}, "LipschitzVAE takes any shape"),
        ({"event_shape": (1, 8, 8), "hidden": (4,)}, "hidden must be two numbers of channels"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        LipschitzConvVAE(**options)


@pytest.fixture(scope="module")
def x():
    return torch.rand(40, 1, 8, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def trained(x):
    pytest.importorskip("deel.torchlip")
    vae = LipschitzConvVAE((1, 8, 12), hidden=(4, 6), latent=3)
    vf.training.fit(vae, x, epochs=2, lr=1e-2, progress=False, certified_radius=0.3, r=2.0)
    return vae.eval()


def test_it_trains_to_a_radius_and_lowers(trained, x):
    plain = trained.export()
    said = vf.explain(plain, x)
    assert "lowers" in str(said.encoder_mean)  # MaxMin between pixels has no kernel
    assert "lowers" in str(said.decoder)
    torch.testing.assert_close(plain.reconstruct(x), trained.reconstruct(x), rtol=1e-4, atol=1e-5)
    for name, found in lipschitz_constants(plain, x)._asdict().items():
        assert found <= getattr(trained.constants, name) * (1 + 2e-7)
    assert (vf.certify.margin(plain, x, 2.0, method="lipschitz").margin >= 0.3).all()
    double = plain.double()
    norm = vf.geometry.spectral_norm(double, x[:4].double(), of="decoder")
    assert (norm <= lipschitz_constants(double, x.double()).a).all()


def test_it_is_a_model_of_its_own_code(trained, tmp_path):
    with pytest.raises(TypeError, match="save its state_dict"):
        vf.models.save(trained, tmp_path / "model.safetensors")
    again = copy.deepcopy(trained)
    assert again.constants == trained.constants

"""scvi-tools' own SCVI module with random weights."""

import pytest
import torch

import vaefast as vf
from vaefast.models import as_vae

module = pytest.importorskip("scvi.module", reason="scvi-tools is not installed")

GENES, d = 7, 3


def test_the_module_itself_goes_through_the_adapter():
    torch.manual_seed(0)
    model = module.VAE(n_input=GENES, n_batch=2, n_latent=d, n_hidden=8).eval()
    x = torch.randint(0, 30, (5, GENES)).float()
    batch = torch.tensor([[0], [1], [1], [0], [1]])
    context = {"batch_index": batch, "library": torch.log(x.sum(1, keepdim=True))}
    vae = as_vae(model, likelihood="gaussian")
    q = model.inference(x=x, batch_index=batch)["qz"]
    mean, std = vae.posterior(x, context)
    assert torch.allclose(mean, q.loc, atol=1e-6)
    assert torch.allclose(std, q.scale, rtol=1e-5)
    with torch.no_grad():
        px = model.generative(z=mean, library=context["library"], batch_index=batch)["px"]
        assert torch.allclose(vae.reconstruct(x, context), px.mean, rtol=1e-5)
    attack = vf.attacks.latent(vae, x, eps=1.0, steps=2, low=0.0, high=100.0, context=context)
    assert (attack.objective > 0).all()
    assert torch.isfinite(vf.geometry.frobenius_norm(vae, x, context=context)).all()

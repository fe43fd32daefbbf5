"""Full Jacobians against autograd, one input at a time."""

import pytest
import torch

import vaefast as vf
from vaefast import geometry

OF = ("encoder", "decoder", "reconstruction")


@pytest.mark.parametrize("of", OF)
def test_is_the_jacobian(vae, x, maps, of):
    result = geometry.jacobian(vae, x, of=of)
    event, latent = list(x.shape[1:]), [3]
    output = latent if of == "encoder" else event
    assert list(result.shape) == [5, *output, *(latent if of == "decoder" else event)]
    assert result.dtype == x.dtype
    torch.testing.assert_close(result.reshape(maps[of].shape), maps[of])


def test_whitened_rows_are_divided_by_std(vae, x, maps):
    std = vae.posterior(x)[1].detach()
    result = geometry.jacobian(vae, x, whiten=True).flatten(2)
    torch.testing.assert_close(result, maps["encoder"] / std[..., None])


@pytest.mark.parametrize("of", OF)
def test_nan_and_chunks(vae, x, of):
    whole = geometry.jacobian(vae, x, of=of)
    x[1, 0, 2, 2] = torch.inf
    vf.set_memory(max(whole.numel() * 8, 10_000))
    result = geometry.jacobian(vae, x, of=of)
    assert result[1].isnan().all()
    good = [0, 2, 3, 4]
    torch.testing.assert_close(result[good], whole[good])


def test_refuses_what_cannot_fit_before_computing(vae, x):
    vf.set_memory(1000)
    with pytest.raises(MemoryError, match="use frobenius_norm, spectral_norm"):
        geometry.jacobian(vae, x, of="reconstruction")


def test_refuses_whitening_anything_but_the_encoder(vae, x):
    with pytest.raises(ValueError, match='it needs of="encoder", got of="decoder"'):
        geometry.jacobian(vae, x, of="decoder", whiten=True)
    with pytest.raises(ValueError, match="of must be one of 'encoder', 'decoder'"):
        geometry.jacobian(vae, x, of="mean")

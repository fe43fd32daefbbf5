"""Rounded gradients and memory formats of the generic trajectory."""

import pytest
import torch
from torch import nn
from unlowered import unlowered

import vaefast as vf
from vaefast import hmc
from vaefast.hmc.target import GenericTarget
from vaefast.models.example import Example
from vaefast.models.forms import Forms
from vaefast.runtime import numerics

EXACT = {"rtol": 0, "atol": 0}


@pytest.fixture
def vae():
    return unlowered((1, 8, 8), channels=3, latent=3, seed=3)


def target(vae, memory_format="contiguous", **options):
    x = torch.rand(2, 64, generator=torch.Generator().manual_seed(1))
    given = {"likelihood": vae.likelihood, "inv_mass": None, "leapfrog": 5, "backend": None}
    vae.event_shape = (1, 8, 8)
    example = Example(x.view(2, 1, 8, 8), torch.zeros(2, 3), None)
    return GenericTarget(x=x, forms=Forms(vae, example, memory_format), **{**given, **options})


def state(rows=4, d=3, dtype=torch.float32):
    return torch.randn(2, rows, d, generator=torch.Generator().manual_seed(0), dtype=dtype)


def run(moving, z, p):
    step = torch.full((len(z),), 0.1, dtype=z.dtype)
    return moving.trajectory()(z, p, moving.potential(z)[1], step=step)


@pytest.mark.parametrize("leapfrog", [1, 2, 5])
def test_the_ends_are_exact_and_what_lies_between_is_rounded(vae, leapfrog, monkeypatch):
    used = []
    autocast = numerics.autocast
    monkeypatch.setattr(
        numerics, "autocast", lambda device, p: used.append(p) or autocast(device, p)
    )
    z, p = state()
    found = run(target(vae, precision="bf16", leapfrog=leapfrog), z, p)
    assert used == ["ieee"] + ["bf16"] * (leapfrog - 1) + ["ieee"]  # a palindrome
    plain = target(vae)
    for end, fresh in zip((found[3], found[2]), plain.potential(found[0])):
        torch.testing.assert_close(end, fresh, **EXACT)
    exact = run(target(vae, leapfrog=leapfrog), z, p)
    torch.testing.assert_close(found[0], exact[0], rtol=0.02, atol=0.02)
    assert torch.equal(found[0], exact[0]) == (leapfrog == 1)


def test_a_rounded_trajectory_is_reversible(vae):
    """But for chains whose rounding flips in the last bit."""
    z, p = state(rows=64)
    moving = target(vae, precision="bf16")
    z_end, p_end, *_ = run(moving, z, p)
    back, *_ = run(moving, z_end, -p_end)
    assert ((back - z).abs().amax(1) < 1e-5).float().mean() > 0.8
    assert (z_end - z).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("wrapped", [False, True])
def test_channels_last_changes_the_layout_and_nothing_else(vae, wrapped):
    seen = []
    layer = vae.decoder[3]  # a ConvTranspose2d
    assert isinstance(layer, nn.ConvTranspose2d)
    handle = layer.register_forward_pre_hook(lambda m, inputs: seen.append((m.weight, *inputs)))
    before = {name: (t.data_ptr(), t.stride()) for name, t in vae.named_parameters()}
    z, p = state()
    model = AsModule(vae) if wrapped else vae
    expected = run(target(vae), z, p)
    seen.clear()
    last = hmc_target(model, vae, memory_format="channels_last")
    found = run(last, z, p)
    handle.remove()
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    for tensor in (t for pair in seen for t in pair):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert len(seen) == 1 + 5
    assert before == {name: (t.data_ptr(), t.stride()) for name, t in vae.named_parameters()}
    assert all(p.grad is None and p.requires_grad for p in vae.parameters())


class AsModule(nn.Module):
    """A model as as_vae takes them."""

    def __init__(self, vae):
        super().__init__()
        self.inner = vae

    def encode(self, x):
        return self.inner.encode(x)

    def decode(self, z):
        return self.inner.decode(z)


def hmc_target(model, vae, **options):
    wrapped = vf.as_vae(model, event_shape=(1, 8, 8), likelihood=vae.likelihood)
    return target(wrapped.eval(), **options)


def test_options_of_sample(vae, mlp_vae):
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    short = {"steps": 3, "warmup": 2, "leapfrog": 2}
    one = hmc.sample(vae, x, **short)
    other = hmc.sample(vae, x, memory_format="channels_last", **short)
    torch.testing.assert_close(one.z, other.z, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="memory_format must be one of 'contiguous'"):
        hmc.sample(vae, x, memory_format="nhwc")
    with pytest.raises(ValueError, match=r"is for images \[B, C, H, W\]"):
        hmc.sample(
            mlp_vae(generic=True), x.flatten(1)[:, :6].double(), memory_format="channels_last"
        )
    with pytest.raises(ValueError, match=r'on the CPU needs a decoder that lowers.*use "ieee"'):
        hmc.sample(vae, x, precision="tf32")

"""Elsewhere a Jacobian came out as 0 because forward mode met an operation that only pretends to
have it: norms and "upper" bounds of 0, without a word. Here forward mode is taken only where it
agrees with backward passes; products come from backward passes where it does not, and a map that
has neither is refused in one line that names it.
"""

import numpy as np
import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.models import derivatives
from vaefast.models.products import ModuleMap


def slope(h):
    s = h.sigmoid()
    return s + h * s * (1 - s)


class Once(torch.autograd.Function):
    """Forward mode passes through it silently, with a tangent of 0."""

    @staticmethod
    def forward(ctx, h):
        ctx.save_for_backward(h)
        return h * h.sigmoid()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * slope(ctx.saved_tensors[0])


class LeavesTorch(Once):
    """The derivative of its derivative is silently 0."""

    @staticmethod
    def backward(ctx, g):
        (h,) = ctx.saved_tensors
        product = np.multiply(g.detach().numpy(), slope(h).detach().numpy())
        return torch.from_numpy(product)


class Modern(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(h):
        return h * h.sigmoid()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx, g):
        return g * slope(ctx.saved_tensors[0])


class Zero(Modern):
    @staticmethod
    def jvp(ctx, tangent):
        return 0 * tangent


class TooShort(Modern):
    @staticmethod
    def jvp(ctx, tangent):
        return 0.9 * tangent * slope(ctx.saved_tensors[0])


class OnlyForward(torch.autograd.Function):
    generate_vmap_rule = True
    forward = staticmethod(Modern.forward)
    setup_context = staticmethod(Modern.setup_context)

    @staticmethod
    def jvp(ctx, tangent):
        return tangent * slope(ctx.saved_tensors[0])


def custom_op(name, derivative=True):
    op = torch.library.custom_op(f"vaefast_field::{name}", mutates_args=())(_swish)
    op.register_fake(torch.empty_like)
    if derivative:
        op.register_autograd(
            lambda ctx, g: g * slope(ctx.saved_tensors[0]),
            setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
        )
    return op


def _swish(h: torch.Tensor) -> torch.Tensor:
    return h * h.sigmoid()


WITHOUT = custom_op("without_derivative", derivative=False)
WITH_BATCHES = custom_op("with_batches")
WITH_BATCHES.register_vmap(lambda info, dims, h: (WITH_BATCHES(h), dims[0]))
SWISHES = {
    "custom op": custom_op("swish"),
    "custom op with batches": WITH_BATCHES,
    "once differentiable": Once.apply,
    "leaves torch": LeavesTorch.apply,
    "no forward rule": Modern.apply,
    "forward rule of 0": Zero.apply,
    "wrong forward rule": TooShort.apply,
    "only a forward rule": OnlyForward.apply,
}


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, h):
        return self.function(h)


def mlp(a, b, c, swish):
    cumulate = Function(lambda h: h.cumsum(1))  # keeps it from lowering
    return nn.Sequential(nn.Linear(a, b), Function(swish), cumulate, nn.Linear(b, c))


def build(swish, in_encoder=None):
    torch.manual_seed(1)
    return vf.VAE(
        encoder_mean=mlp(16, 12, 4, in_encoder or swish),
        encoder_logvar=torch.zeros(4),
        decoder=mlp(4, 12, 16, swish),
        likelihood="gaussian",
    ).eval()


X = torch.rand(3, 16, generator=torch.Generator().manual_seed(0))
CALLS = {
    "decoder, upper": lambda v: vf.geometry.spectral_norm(v, X, of="decoder"),
    "decoder, frobenius": lambda v: vf.geometry.frobenius_norm(v, X, of="decoder"),
    "reconstruction, lower": lambda v: vf.geometry.spectral_norm(
        v, X, of="reconstruction", bound="lower"
    ),
    "decoder, hutchinson": lambda v: vf.geometry.frobenius_norm(
        v, X, of="decoder", method="hutchinson", probes=3
    ),
    "encoder, lower": lambda v: vf.geometry.spectral_norm(v, X, bound="lower"),
    "encoder, upper": lambda v: vf.geometry.spectral_norm(v, X),
    "Jacobian": lambda v: vf.geometry.jacobian(v, X, of="reconstruction"),
    "spectrum": lambda v: vf.geometry.pullback_spectrum(v, X, of="reconstruction").eigenvalues,
    "margin": lambda v: vf.certify.margin(v, X, r=1.0, samples=200).margin,
}
RIGHT = {name: call(build(nn.functional.silu)) for name, call in CALLS.items()}


@pytest.mark.parametrize("name", SWISHES)
def test_products_do_not_depend_on_the_modes_that_an_operation_has(name):
    vae = build(SWISHES[name])
    for call, right in RIGHT.items():
        torch.testing.assert_close(CALLS[call](vae), right, rtol=2e-4, atol=1e-6, msg=call)


@pytest.mark.parametrize(("of", "name"), [("encoder", "encode()"), ("decoder", "decode()")])
def test_a_map_without_any_derivative_is_refused_by_name(of, name):
    vae = build(WITHOUT, in_encoder=nn.functional.silu if of == "decoder" else None)
    with pytest.raises(ValueError, match="neither by backward nor by forward mode") as caught:
        vf.geometry.spectral_norm(vae, X, of=of)
    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)


def _map(function, outputs):
    return ModuleMap(function, torch.Size([4]), outputs, lambda: 1000, "")


def test_the_check_looks_further_than_a_dead_first_point():
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    dead = _map(lambda x: Zero.apply((x @ weight).relu() - 0.0) * (x[:, :1] > 0), 6)
    x = torch.tensor([[-1.0, 1, 1, 1], [1.0, 1, 1, 1]])
    v = torch.eye(4).expand(2, 4, 4)
    pulled = dead.vjp(x, torch.eye(6).expand(2, 6, 6))  # [2, 6, 4]
    assert not pulled[0].any()
    assert pulled[1].any()
    torch.testing.assert_close(dead.jvp(x, v), pulled.mT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_forward_mode_of_plain_layers_is_trusted_in_every_dtype(dtype):
    """Rounding inside of a half-precision module is no disagreement."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 32), nn.LayerNorm(32), nn.Tanh(), nn.Linear(32, 64)).to(dtype)
    x = torch.rand(5, 4, dtype=torch.promote_types(dtype, torch.float32))
    push = derivatives.trusted(lambda x: net(x.to(dtype)).to(x.dtype), x)
    assert push is derivatives.push_forward


@pytest.mark.parametrize("swish", ["custom op", "no forward rule"])
def test_two_backward_passes_stand_in_for_forward_mode(swish):
    push = derivatives.trusted(SWISHES[swish], torch.rand(2, 4))
    assert push is derivatives.push_by_two_pulls


def test_a_std_that_moves_but_is_detached_is_refused():
    class Heads(nn.Module):
        def __init__(self, move):
            super().__init__()
            self.mean, self.move = nn.Linear(16, 4), move

        def forward(self, x):
            mean = self.mean(x)
            return mean, (self.move * mean.detach()).cumsum(1) - 2

    def spectrum(move):
        encoder = Heads(move)
        encoder.encode, encoder.decode = encoder.forward, nn.Linear(4, 16)
        return vf.geometry.pullback_spectrum(
            vf.as_vae(encoder, likelihood="gaussian").eval(), X, std=True
        )

    spectrum(0.0)  # a constant is none
    with pytest.raises(ValueError, match=r"log-variance of encode\(\) must depend on its input"):
        spectrum(1.0)


class Attention(nn.Module):
    """The fused kernels have one derivative and no forward mode."""

    def __init__(self, layer):
        super().__init__()
        self.e, self.q, self.o = nn.Linear(64, 4), nn.Linear(4, 128), nn.Linear(128, 64)
        self.t = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.layer = layer

    def encode(self, x):
        return self.e(x.flatten(1)), torch.zeros_like(self.e(x.flatten(1)))

    def decode(self, z):
        h = self.q(z).view(len(z), 8, 16)
        if self.layer:
            return self.o(self.t(h).flatten(1)).view(-1, 1, 8, 8)
        h = h.view(len(z), 8, 2, 8).transpose(1, 2)
        h = nn.functional.scaled_dot_product_attention(h, h, h)
        return self.o(h.flatten(1)).view(-1, 1, 8, 8)


@pytest.mark.parametrize("layer", [False, True], ids=["function", "layer"])
def test_attention_decoders_have_a_geometry(layer):
    torch.manual_seed(0)
    vae = vf.as_vae(Attention(layer).eval(), likelihood="gaussian").eval()
    x = torch.rand(2, 1, 8, 8)
    z = vae.encode(x)[0].detach()
    rows = [torch.autograd.functional.jacobian(lambda v: vae.g(v[None])[0].flatten(), p) for p in z]
    true = torch.stack(rows)  # by backward passes [2, 64, 4]
    found = vf.geometry.jacobian(vae, x, of="decoder").flatten(1, 3)
    torch.testing.assert_close(found, true, rtol=1e-4, atol=1e-5)
    exact = torch.linalg.matrix_norm(true.double(), ord=2)
    torch.testing.assert_close(
        vf.geometry.spectral_norm(vae, x, of="decoder"), exact, rtol=1e-4, atol=0
    )
    vf.geometry.pullback_spectrum(vae, x, of="reconstruction")
    attacked = vf.attacks.geometric(vae, x, eps=1.0, of="reconstruction")
    assert not attacked.failed.any()


def test_the_callers_choice_of_attention_kernels_is_left_as_it_was():
    torch.manual_seed(0)
    vae = vf.as_vae(Attention(True).eval(), likelihood="gaussian").eval()
    cuda = torch.backends.cuda
    before = cuda.flash_sdp_enabled(), torch.backends.mha.get_fastpath_enabled()
    vf.geometry.spectral_norm(vae, torch.rand(2, 1, 8, 8), of="decoder")
    assert (cuda.flash_sdp_enabled(), torch.backends.mha.get_fastpath_enabled()) == before

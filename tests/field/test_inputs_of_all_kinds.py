"""Arrays, integers, sparse, complex and meta tensors met an internal error, or advice that spoils
data (``.float()`` of complex numbers, ``.long()`` of NaN).

Each public function takes x, or refuses it in one line with the way out; views, inference tensors
and x that requires gradients give what a plain copy gives.
"""

import numpy as np
import pytest
import torch
from torch import nn

import vaefast as vf

HMC = {"steps": 2, "warmup": 2, "leapfrog": 2}
SEARCH = {"grid": 2, "bisections": 1, "restarts": 1, "steps": 1, "samples": 9}
CALLS = {
    "latent": lambda v, x: vf.attacks.latent(v, x, eps=0.1, steps=2).x_adv,
    "max_damage": lambda v, x: vf.attacks.max_damage(v, x, eps=0.1, steps=2).x_adv,
    "geometric": lambda v, x: vf.attacks.geometric(v, x, eps=0.1).x_adv,
    "robust_probability": lambda v, x: vf.certify.robust_probability(v, x, 1.0, samples=9).p,
    "margin": lambda v, x: vf.certify.margin(v, x, 3.0, samples=20).margin,
    "empirical_margin": lambda v, x: vf.certify.empirical_margin(v, x, 0.5, **SEARCH).margin,
    "frobenius_norm": vf.geometry.frobenius_norm,
    "spectral_norm": lambda v, x: vf.geometry.spectral_norm(v, x, of="reconstruction"),
    "jacobian": vf.geometry.jacobian,
    "robustness_scores": lambda v, x: vf.geometry.robustness_scores(v, x).spectral_radius,
    "likelihood_degradation": lambda v, x: vf.metrics.likelihood_degradation(v, x, x),
    "evaluate_elbo": lambda v, x: vf.training.evaluate_elbo(v, x).elbo,
    "sample": lambda v, x: vf.hmc.sample(v, x, **HMC).z,
    "defend": lambda v, x: vf.hmc.defend(v, x, **HMC).reconstruction,
    "tune": lambda v, x: torch.tensor(
        vf.hmc.tune(v, x, leapfrogs=(2,), steps=2, warmup=2)["step_size"]
    ),
    "reconstruct": lambda v, x: v.reconstruct(x),
}
X = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
REFUSED = {
    "an array": (X.numpy(), r"x\w* must be a torch.Tensor, got ndarray; pass torch.as_tensor\(x"),
    "a list": (X.tolist(), r"x\w* must be a torch.Tensor, got list; pass torch.as_tensor\(x"),
    "complex": (X + 0j, r"x\w* must be floating, got complex64; pass x\w*.real or x\w*.abs\(\)$"),
    "sparse": (X.to_sparse(), r"x\w* must be dense, got sparse_coo; pass x\w*.to_dense\(\)$"),
    "whole numbers": ((X > 0.5).long(), r"x\w* must be floating, got int64; pass x\w*.float\(\)$"),
    "bytes": ((X * 255).byte(), r"x\w* must be floating, got uint8; pass x\w*.float\(\) / 255$"),
    "meta": (X.to("meta"), r"x is on meta, model on cpu; pass x.to\('cpu'\)$"),
}


def inference(x):
    with torch.inference_mode():
        return x.clone()


LIKE_PLAIN = {
    "inference": inference,
    "with gradient": lambda x: x.clone().requires_grad_(),
    "strided": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "cut": lambda x: torch.nn.functional.pad(x, (2, 2))[..., 2:-2],
}


class Wave(nn.Module):
    def forward(self, h):
        return h.sin()


def lowers():
    return vf.models.MLPVAE((1, 4, 4), (8,), 2).eval()


def generic():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return vf.VAE(
            encoder_mean=nn.Sequential(nn.Flatten(), nn.Linear(16, 8), Wave(), nn.Linear(8, 2)),
            encoder_logvar=torch.full((2,), -2.0),
            decoder=nn.Sequential(nn.Linear(2, 8), Wave(), nn.Linear(8, 16)),
            event_shape=(1, 4, 4),
        ).eval()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_with_the_way_out(kind, name):
    x, words = REFUSED[kind]
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        CALLS[name](lowers(), x)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", LIKE_PLAIN)
@pytest.mark.parametrize("model", [lowers, generic])
def test_it_is_taken_as_a_plain_copy(model, kind, name):
    vae, x = model(), LIKE_PLAIN[kind](X)
    found, plain = CALLS[name](vae, x), CALLS[name](vae, X)
    torch.testing.assert_close(found.detach(), plain.detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(x.detach(), X)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("model", [lowers, generic])
def test_no_rows_give_no_rows(model, name):
    if name == "tune":
        with pytest.raises(ValueError, match="x_pilot must hold at least one row, got none"):
            CALLS[name](model(), X[:0])
    else:
        assert len(CALLS[name](model(), X[:0])) == 0


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("model", [lowers, generic])
@pytest.mark.parametrize("x", [X, X.to("meta")], ids=["cpu", "meta"])
def test_a_model_without_values_says_so(model, name, x):
    if name == "reconstruct" and x.is_meta:
        pytest.skip("shapes alone are what such a call is for")
    with pytest.raises(ValueError, match="the model is on meta, where weights have no values"):
        CALLS[name](model().to("meta"), x)


@pytest.mark.parametrize("name", CALLS)
def test_a_model_of_several_dtypes_says_so(name):
    mixed, complex_ = lowers(), lowers()
    mixed.decoder.double()
    if name not in ("latent", "frobenius_norm", "jacobian"):  # which need no decoder
        with pytest.raises(TypeError, match="give encoder and decoder one dtype"):
            CALLS[name](mixed, X)
    for part in complex_.modules():
        for key, weight in part._parameters.items():
            part._parameters[key] = nn.Parameter(weight + 0j)
    with pytest.raises(TypeError, match="weights must be floating, got complex64 in"):
        CALLS[name](complex_, X)


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        (torch.zeros(3, 1, device="meta"), r"context is on meta, x on cpu; pass context.to\('cpu'"),
        (np.zeros((3, 1)), r"got ndarray; pass torch.as_tensor\(context\)"),
        ({"a": [0, 1, 2]}, r"got list; pass torch.as_tensor\(context\['a'\]\)"),
    ],
    ids=["meta", "array", "list"],
)
@pytest.mark.parametrize("name", ["sample", "latent", "margin", "frobenius_norm"])
def test_conditions_of_other_kinds(name, conditions, words):
    calls = {
        "sample": lambda v: vf.hmc.sample(v, X, context=conditions, **HMC),
        "latent": lambda v: vf.attacks.latent(v, X, eps=0.1, context=conditions),
        "margin": lambda v: vf.certify.margin(v, X, 1.0, context=conditions),
        "frobenius_norm": lambda v: vf.geometry.frobenius_norm(v, X, context=conditions),
    }
    with pytest.raises((TypeError, ValueError), match=words):
        calls[name](lowers())


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([0, torch.nan, 1], "got nan in row 1; pass classes as 0, 1, ..."),
        ([0.0, 1.0, 0.5], "got 0.5 in row 2; pass classes as 0, 1, ..."),
        ([0.0, 1.0, 0.0], "got float32; pass y.long()"),
    ],
)
def test_no_advice_turns_nan_into_a_class(y, words):
    with pytest.raises(TypeError) as caught:
        vf.metrics.LatentClassifier.fit(lowers(), X, torch.tensor(y))
    assert words in str(caught.value)


def test_pixels_to_255_are_not_compared_as_if_they_ended_at_1():
    with pytest.warns(UserWarning, match="far more than data_range=1; pass the distance of white"):
        vf.metrics.msssim(X * 255, X * 250)
    vf.metrics.msssim(X * 255, X * 250, data_range=255)
    vf.metrics.msssim(1.4 * X - 0.2, X)


def test_a_start_that_is_a_view_is_taken_as_a_plain_copy():
    init = torch.zeros(2, 2, 3).permute(2, 1, 0)
    found = vf.hmc.sample(lowers(), X, init=init, chains=2, **HMC)
    assert not found.failed.any()


def test_a_box_has_its_ends_in_order():
    with pytest.raises(ValueError, match="low must be at most high, got 1 and 0"):
        vf.attacks.latent(lowers(), X, eps=0.1, low=1, high=0)
    with pytest.raises(TypeError) as caught:
        vf.attacks.latent(lowers(), X, eps="8/255")
    assert "as_tensor" not in str(caught.value)


@pytest.mark.parametrize("z", [torch.zeros(2, 2, dtype=torch.int64), np.zeros((2, 2)), [[0.0, 0]]])
def test_latents_of_other_kinds(z):
    with pytest.raises(TypeError, match=r"z must be .*; pass (z\.float|torch\.as_tensor)"):
        lowers().decode(z)

"""Weights that are no plain tensors: quantised, sparse, or wrappers as distributed ones are.

Their address is 0 or an error: the process died in the packing of weights, or every function ended
with "invalid python storage". They are refused by the lowering with the reason, and the module runs
as it is, in every public function.
"""

import pytest
import torch
import torch.distributed.tensor
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

import vaefast as vf


class Int8(torch.Tensor):
    """A weight as whole numbers and a scale per row; knows linear layers only."""

    @staticmethod
    def __new__(cls, numbers, scale):
        return torch.Tensor._make_wrapper_subclass(cls, numbers.shape, dtype=scale.dtype)

    def __init__(self, numbers, scale):
        self.numbers, self.scale = numbers, scale

    def __tensor_flatten__(self):
        return ["numbers", "scale"], None

    @classmethod
    def of(cls, weight):
        scale = weight.abs().amax(1, keepdim=True) / 127
        return cls((weight / scale).round().to(torch.int8), scale)

    def plain(self):
        return self.numbers.to(self.scale.dtype) * self.scale

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is nn.functional.linear:
            x, weight, *bias = args
            return function(x, weight.plain(), *bias)
        return super().__torch_function__(function, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.detach.default:
            return cls(args[0].numbers, args[0].scale)
        raise NotImplementedError(function)


class Silent(Int8):
    """The same, and tells nobody what it holds."""

    __tensor_flatten__ = property(lambda self: (_ for _ in ()).throw(AttributeError()))


WRAPPED = {
    "int8": lambda w: nn.Parameter(Int8.of(w), requires_grad=False),
    "silent": lambda w: nn.Parameter(Silent.of(w), requires_grad=False),
    "sparse": lambda w: nn.Parameter(w.to_sparse_csr()),
    "two": lambda w: nn.Parameter(TwoTensor(w, w.clone())),
}
SHORT = {"steps": 2, "warmup": 2, "leapfrog": 2}
OPTIONS = {"steps": 2, "eps": 0.1}
CALLS = {
    "explain": vf.explain,
    "reconstruct": lambda vae, x: vae.reconstruct(x),
    "frozen": lambda vae, x: in_block(vae, x),
    "attacks.latent": lambda vae, x: vf.attacks.latent(vae, x, **OPTIONS),
    "attacks.max_damage": lambda vae, x: vf.attacks.max_damage(vae, x, **OPTIONS),
    "attacks.geometric": lambda vae, x: vf.attacks.geometric(vae, x, eps=0.1),
    "certify.robust_probability": lambda vae, x: vf.certify.robust_probability(
        vae, x, 1.0, samples=20
    ),
    "certify.margin": lambda vae, x: vf.certify.margin(vae, x, 3.0, samples=20),
    "certify.empirical_margin": lambda vae, x: vf.certify.empirical_margin(
        vae, x, 0.5, grid=2, bisections=1, restarts=2, steps=2, samples=20
    ),
    "geometry.frobenius_norm": vf.geometry.frobenius_norm,
    "geometry.spectral_norm": lambda vae, x: vf.geometry.spectral_norm(vae, x, of="decoder"),
    "geometry.jacobian": vf.geometry.jacobian,
    "geometry.pullback_spectrum": vf.geometry.pullback_spectrum,
    "geometry.robustness_scores": vf.geometry.robustness_scores,
    "metrics.likelihood_degradation": lambda vae, x: vf.metrics.likelihood_degradation(vae, x, x),
    "metrics.LatentClassifier": lambda vae, x: vf.metrics.LatentClassifier.fit(
        vae, x, torch.tensor([0, 1, 0]), epochs=1
    ),
    "training.evaluate_elbo": vf.training.evaluate_elbo,
    "hmc.sample": lambda vae, x: vf.hmc.sample(vae, x, **SHORT),
    "hmc.defend": lambda vae, x: vf.hmc.defend(vae, x, **SHORT),
    "hmc.tune": lambda vae, x: vf.hmc.tune(vae, x, leapfrogs=(2,), steps=2, warmup=2),
}


def in_block(vae, x):
    with vf.frozen(vae):
        return vf.geometry.frobenius_norm(vae, x)


def model(kind):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4))
    decoder = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 16))
    for layer in (encoder[1], decoder[0]):
        layer.weight = WRAPPED[kind](layer.weight.data)
    return vf.VAE(
        encoder_mean=encoder,
        encoder_logvar=torch.zeros(4),
        decoder=decoder,
        event_shape=(1, 4, 4),
    ).eval()


@pytest.fixture
def x():
    return torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", WRAPPED)
def test_public_functions_run(kind, name, x):
    CALLS[name](model(kind), x)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("kind", WRAPPED)
def test_explain_says_why(kind, x):
    assert "'0.weight' is no plain tensor" in str(vf.explain(model(kind), x))


def test_a_change_inside_frozen_is_found(x):
    vae = model("int8")
    with pytest.raises(RuntimeError, match="weights changed inside"), vf.frozen(vae):
        vae.decoder[0].weight.scale.mul_(2)


def test_a_change_of_a_distributed_weight_is_found():
    group = torch.distributed
    group.init_process_group("gloo", store=group.HashStore(), rank=0, world_size=1)
    try:
        mesh = group.device_mesh.init_device_mesh("cpu", (1,))
        vae = model("int8")
        whole = group.tensor.distribute_tensor(torch.ones(8, 4), mesh, [group.tensor.Replicate()])
        vae.decoder[0].weight = nn.Parameter(whole)
        with pytest.raises(RuntimeError, match="weights changed inside"), vf.frozen(vae):
            vae.decoder[0].weight.data.to_local().mul_(2)
    finally:
        group.destroy_process_group()

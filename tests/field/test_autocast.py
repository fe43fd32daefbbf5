"""Elsewhere a bound that was computed inside ``torch.autocast`` fell below the norm it bounds, as
the products inside were rounded to bfloat16. Here autocast is off inside of every public function:
the numbers are those of the same call outside.
"""

import copy
import dataclasses
import inspect

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast import ops
from vaefast.runtime import grad_mode, numerics

X = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
FLAT = X.flatten(1)
Z = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2])


class Plain(nn.Module):
    """Nothing in it lowers, so its own products are what counts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.e, self.s, self.d = nn.Linear(64, 8), nn.Linear(64, 8), nn.Linear(8, 64)

    def encode(self, x):
        h = x.flatten(1).cumsum(1) / 8
        return self.e(h), self.s(h)

    def decode(self, z):
        return self.d(z.cumsum(1)).view(-1, 1, 8, 8)


VAE = vf.as_vae(Plain().eval()).eval()
CERTIFIED = lambda: vf.certify.margin(LIPSCHITZ, X, 3.0, method="lipschitz")  # noqa: E731
LIPSCHITZ = vf.models.LipschitzVAE((1, 8, 8), hidden=(8,), latent=3).eval()
NET = vf.lower(nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 64)), Z)
SQUARE = (Z.mT @ Z)[None].double()
LINEAR = nn.Linear(8, 3)
SPREAD = Z.abs()
CLASSIFIER = vf.metrics.LatentClassifier(torch.randn(3, 8), torch.zeros(3), LABELS, 1.0)
TV_BOUND = {"at": (0, 1), "temperatures": 2, "chains": 2, "leapfrog": 2, "steps": 4, "warmup": 2}
SAMPLING = {"steps": 3, "warmup": 3, "leapfrog": 2}
OP = {"backend": "reference"}


def _fit():
    vae = copy.deepcopy(VAE)
    history = vf.training.fit(vae, X, epochs=2, batch_size=2, progress=False)
    return history, [p.detach() for p in vae.parameters()]


def _explain():
    return str(vf.explain(VAE, X))


def _classifier():
    return vf.metrics.LatentClassifier.fit(VAE, X.repeat(4, 1, 1, 1), LABELS.repeat(4), epochs=3)


GROUPS = vf.models.HierarchicalVAE((1, 8, 8), 2, 4, 3).eval()
IMAGES = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(5))
RUN = {"steps": 2, "warmup": 2, "leapfrog": 2}
CALLS = {
    "attacks.damage_curve": lambda: vf.attacks.damage_curve(VAE, X, directions=2),
    "attacks.geometric": lambda: vf.attacks.geometric(VAE, X, eps=1.0),
    "attacks.latent": lambda: vf.attacks.latent(VAE, X, eps=0.1, steps=2, restarts=2),
    "attacks.max_damage": lambda: vf.attacks.max_damage(VAE, X, eps=0.1, steps=2),
    "certify.clopper_pearson": lambda: vf.certify.clopper_pearson(LABELS, 3, 0.1),
    "certify.empirical_margin": lambda: vf.certify.empirical_margin(
        VAE, X, 0.1, grid=2, bisections=1, restarts=2, steps=2, samples=20
    ),
    "certify.margin": lambda: vf.certify.margin(VAE, X, 3.0, samples=50),
    "certify.distance": lambda: vf.certify.distance(LIPSCHITZ, X, 0.01, samples=50),
    "certify.band": lambda: vf.certify.band(SPREAD, 0.5, 0.1),
    "certify.band_width": lambda: vf.certify.band_width(50, 0.1),
    "certify.binomial_p_values": lambda: vf.certify.binomial_p_values(LABELS, 3, Z[:, 0].sigmoid()),
    "certify.certified_at": lambda: vf.certify.certified_at(LIPSCHITZ, X, 0.01, 3.0, samples=50),
    "certify.drawn_distances": lambda: vf.certify.drawn_distances(VAE, X, samples=50),
    "certify.holm": lambda: vf.certify.holm(SPREAD[0], 0.1),
    "certify.order_statistics": lambda: vf.certify.order_statistics(SPREAD, 2, 0.1),
    "certify.required_at": lambda: vf.certify.required_at(LIPSCHITZ, X, 0.01),
    "certify.simultaneous_bounds": lambda: vf.certify.simultaneous_bounds(LABELS[None], 3, 0.1),
    "certify.best": lambda: vf.certify.best(CERTIFIED(), CERTIFIED()),
    "certify.robust_probabilities": lambda: vf.certify.robust_probabilities(
        VAE, X, (0.5, 1.0), samples=50
    ),
    "certify.robust_probability": lambda: vf.certify.robust_probability(VAE, X, 1.0, samples=50),
    "geometry.frobenius_norm": lambda: vf.geometry.frobenius_norm(VAE, X, of="reconstruction"),
    "geometry.jacobian": lambda: vf.geometry.jacobian(VAE, X, of="reconstruction"),
    "geometry.pullback_spectrum": lambda: vf.geometry.pullback_spectrum(VAE, X, std=True),
    "geometry.pullback_trace": lambda: vf.geometry.pullback_trace(VAE, X, of="fisher"),
    "geometry.robustness_scores": lambda: vf.geometry.robustness_scores(VAE, X),
    "geometry.spectral_norm": lambda: vf.geometry.spectral_norm(VAE, X, whiten=True),
    "hmc.defend": lambda: vf.hmc.defend(VAE, X, **SAMPLING),
    "hmc.sample": lambda: vf.hmc.sample(VAE, X, **SAMPLING),
    "hmc.tune": lambda: vf.hmc.tune(VAE, X, leapfrogs=(2,), steps=3, warmup=3),
    "metrics.LatentClassifier.fit": _classifier,
    "metrics.LatentClassifier.logits": lambda: CLASSIFIER.logits(Z),
    "metrics.LatentClassifier.predict": lambda: CLASSIFIER.predict(Z),
    "metrics.adversarial_accuracy": lambda: vf.metrics.adversarial_accuracy(CLASSIFIER, Z, Z),
    "attacks.latent_groups": lambda: vf.attacks.latent_groups(
        GROUPS, IMAGES, top=2, eps=0.1, steps=2
    ),
    "hmc.sample_groups": lambda: vf.hmc.sample_groups(GROUPS, IMAGES, **RUN),
    "hmc.defend_groups": lambda: vf.hmc.defend_groups(GROUPS, IMAGES, top=1, **RUN),
    "hmc.sample_posterior": lambda: vf.hmc.sample_posterior(VAE, Z, X, 3, 0.1),
    "hmc.sample_potential": lambda: vf.hmc.sample_potential(
        lambda z: 0.5 * (z @ Z.mT).square().sum(1), Z, **SAMPLING
    ),
    "hmc.log_marginal": lambda: vf.hmc.log_marginal(VAE, X, temperatures=3, chains=2),
    "hmc.tv_bound": lambda: vf.hmc.tv_bound(VAE, X, X.flip(0), **TV_BOUND),
    "metrics.likelihood_degradation": lambda: vf.metrics.likelihood_degradation(VAE, X, X.flip(0)),
    "metrics.msssim": lambda: vf.metrics.msssim(X, X.flip(0)),
    "models.explain": _explain,
    "models.lipschitz_constants": lambda: vf.models.lipschitz_constants(LIPSCHITZ, X),
    "ops.decode_distance": lambda: ops.decode_distance(
        Z, Z.abs(), torch.zeros(3, 64), torch.full((3,), 3.0), NET, seed=0, samples=9, **OP
    ),
    "ops.eigenvalue_bound": lambda: ops.eigenvalue_bound(SQUARE, **OP),
    "ops.log_likelihood": lambda: ops.log_likelihood(FLAT, FLAT, likelihood="bernoulli", **OP),
    "ops.net_displacement_bound": lambda: ops.net_displacement_bound(Z, 0.5, NET, **OP),
    "ops.net_forward": lambda: ops.net_forward(Z, NET, **OP),
    "ops.net_jacobian_gram": lambda: ops.net_jacobian_gram(Z, NET, **OP),
    "ops.net_jvp": lambda: ops.net_jvp(Z, Z[:, None], NET, full=True, **OP),
    "ops.net_potential": lambda: ops.net_potential(Z, FLAT, NET, likelihood="bernoulli", **OP),
    "ops.net_vjp": lambda: ops.net_vjp(Z, FLAT[:, None], NET, full=True, **OP),
    "ops.pgd_step": lambda: ops.pgd_step(
        FLAT, FLAT.flip(0), FLAT, alpha=0.1, eps=1.0, norm="l2", low=0.0, high=1.0, **OP
    ),
    "training.decompose_kl": lambda: vf.training.decompose_kl(Z, -Z.abs(), Z, Z.sum(1), 9),
    "training.evaluate_elbo": lambda: vf.training.evaluate_elbo(VAE, X, samples=2),
    "training.fit": _fit,
    "lower": lambda: vf.lower(LINEAR, Z),
}
NOT_RUN = {
    "models.as_hierarchical": "looks at functions and computes nothing",
    "models.from_log_joint": "looks at a function and computes nothing",
    "models.as_vae": "looks at a module and computes nothing",
    "models.load": "reads a file",
    "models.save": "writes a file",
    "ops.supports": "a query",
    "ops.leapfrog_step": "elementwise, and products in the caller's own gradients",
    "ops.net_chain": "registered as the others are",
    "ops.net_trajectory": "registered as the others are",
    "ops.net_trajectory_vjp": "registered as the others are",
    "audit.run": "only calls the functions above; it is decorated",
}


def leaves(result):
    if isinstance(result, torch.Tensor):
        return [result]
    if dataclasses.is_dataclass(result):
        return [
            leaf for f in dataclasses.fields(result) for leaf in leaves(getattr(result, f.name))
        ]
    if isinstance(result, dict):
        return [leaf for value in result.values() for leaf in leaves(value)]
    if isinstance(result, list | tuple):
        return [leaf for value in result for leaf in leaves(value)]
    return [result]


def public():
    """Every function in the ``__all__`` of the packages that compute."""
    packages = ("attacks", "certify", "geometry", "hmc", "metrics", "models", "ops", "training")
    for package in packages:
        module = getattr(vf, package)
        for name in module.__all__:
            if inspect.isfunction(inspect.unwrap(getattr(module, name))):
                yield f"{package}.{name}"
    yield from ("lower", "audit.run")


def test_no_public_function_is_left_out():
    assert set(public()) <= {*CALLS} | NOT_RUN.keys()


@pytest.mark.parametrize("name", CALLS)
def test_the_numbers_are_those_without_autocast(name):
    outside = leaves(CALLS[name]())
    with torch.autocast("cpu", torch.bfloat16):
        inside = leaves(CALLS[name]())
        assert torch.is_autocast_enabled("cpu")
    assert len(inside) == len(outside)
    for a, b in zip(inside, outside, strict=True):
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        else:
            assert a == b or a != a


def test_upper_bounds_hold_inside():
    exact = vf.geometry.spectral_norm(copy.deepcopy(VAE).double(), X.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert bool((vf.geometry.spectral_norm(VAE, X) >= exact).all())


def test_autocast_is_off_for_every_kind_of_device():
    """The GPU's switch is the same kind of flag; here it is only looked at."""
    seen = []

    @grad_mode.without_grad
    def look():
        seen.append([torch.is_autocast_enabled(device) for device in grad_mode.AUTOCAST])

    torch.set_autocast_enabled("cuda", True)
    try:
        look()
        assert torch.is_autocast_enabled("cuda")
    finally:
        torch.set_autocast_enabled("cuda", False)
    assert seen == [[False] * len(grad_mode.AUTOCAST)]


def test_bounds_ask_for_full_products_on_a_gpu(monkeypatch):
    """A GPU's convolutions are rounded to tf32 unless they are told not to, as under autocast."""
    asked, products = [], numerics.products

    def record(device, precision):
        asked.append(precision)
        return products(device, precision)

    monkeypatch.setattr(numerics, "products", record)
    for name in ("geometry.spectral_norm", "geometry.jacobian", "certify.robust_probability"):
        asked.clear()
        CALLS[name]()
        assert asked == ["ieee"], name
    asked.clear()
    CALLS["certify.margin"]()
    assert asked == ["ieee"] * 3  # the probability, σ and the norm


def test_an_error_leaves_autocast_on():
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(ValueError, match=r"x must be"):
            vf.geometry.spectral_norm(VAE, X[0, 0, 0])
        assert torch.is_autocast_enabled("cpu")

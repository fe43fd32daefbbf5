"""Modules as people have them: TorchScript, layers that write in place, ``.squeeze()``, a head that
returns a pair, a wrapper around the model. Each works in every public function, or one line names
what to do; the caller's x is never changed.
"""

import copy

import pytest
import torch
from torch import nn

import vaefast as vf

X = 2 * torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 1
OPTIONS = {"likelihood": "gaussian", "obs_std": 1.0, "encoder_output": "logvar"}
BOX = {"eps": 0.1, "low": -1.0, "high": 1.0}
TUNE = {"warmup": 1, "steps": 2}


class Model(nn.Module):
    """Without in-place layers and squeezes, what the others must agree with."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.back = nn.Conv2d(1, 6, 8), nn.Linear(3, 64)
        self.start, self.middle = nn.ReLU(), nn.ReLU()

    @torch.jit.export
    def encode(self, x: torch.Tensor):
        h = self.conv(self.start(x)).flatten(1)
        return h[:, :3], h[:, 3:]

    @torch.jit.export
    def decode(self, z: torch.Tensor):
        return self.back(self.middle(z)).view(-1, 1, 8, 8)

    def forward(self, x: torch.Tensor):
        return self.decode(self.encode(x)[0])


class InPlace(Model):
    def __init__(self):
        super().__init__()
        self.start, self.middle = nn.ReLU(inplace=True), nn.ReLU(inplace=True)


class Written(Model):
    def encode(self, x):
        x[x < 0] = 0
        return super().encode(x)

    def decode(self, z):
        return super().decode(z.mul_(2).div_(2).clamp_(min=0))


class Squeezed(Model):
    def encode(self, x):
        return self.conv(self.start(x)).squeeze().chunk(2, dim=-1)

    def decode(self, z):
        return super().decode(z).squeeze()


def parts(module):
    """The same model as a VAE of two heads that share their first layer and have no trunk."""
    mean, logvar = nn.Conv2d(1, 3, 8), nn.Conv2d(1, 3, 8)
    for head, rows in ((mean, slice(0, 3)), (logvar, slice(3, 6))):
        head.weight.data, head.bias.data = module.conv.weight[rows], module.conv.bias[rows]
    heads = [nn.Sequential(module.start, head, nn.Flatten()) for head in (mean, logvar)]
    decoder = nn.Sequential(module.middle, module.back, nn.Unflatten(1, (1, 8, 8)))
    return [*heads, decoder]


def of_parts(module, change=lambda part: part):
    mean, logvar, decoder = (change(part.eval()) for part in parts(module))
    return vf.VAE(
        encoder_mean=mean, encoder_logvar=logvar, decoder=decoder, likelihood="gaussian"
    ).eval()


def wrapped(module):
    return vf.as_vae(module.eval(), **OPTIONS)


MODELS = {
    "in place": lambda: wrapped(InPlace()),
    "in place, of parts": lambda: of_parts(InPlace()),
    "written": lambda: wrapped(Written()),
    "squeezed": lambda: wrapped(Squeezed()),
    "script": lambda: wrapped(torch.jit.script(InPlace().eval())),
    "script, of parts": lambda: of_parts(InPlace(), torch.jit.script),
    "frozen script, of parts": lambda: of_parts(
        InPlace(), lambda part: torch.jit.freeze(torch.jit.script(part))
    ),
    "compiled": lambda: wrapped(torch.compile(InPlace(), backend="eager")),
}
PUBLIC = {
    "latent": lambda v, x: vf.attacks.latent(v, x, steps=2, **BOX).x_adv,
    "max_damage": lambda v, x: vf.attacks.max_damage(v, x, steps=2, **BOX).x_adv,
    "geometric": lambda v, x: vf.attacks.geometric(v, x, **BOX).x_adv.abs(),
    "sample": lambda v, x: vf.hmc.sample(v, x, steps=2, warmup=2).z,
    "defend": lambda v, x: vf.hmc.defend(v, x, steps=2, warmup=2).reconstruction,
    "tune": lambda v, x: vf.hmc.tune(v, x, leapfrogs=(2, 3), **TUNE) and x.new_zeros(1),
    "frobenius_norm": lambda v, x: vf.geometry.frobenius_norm(v, x, of="reconstruction"),
    "spectral_norm": lambda v, x: vf.geometry.spectral_norm(v, x, of="decoder"),
    "jacobian": lambda v, x: vf.geometry.jacobian(v, x),
    "pullback_spectrum": lambda v, x: vf.geometry.pullback_spectrum(v, x).eigenvalues,
    "robustness_scores": lambda v, x: vf.geometry.robustness_scores(v, x).spectral_radius,
    "robust_probability": lambda v, x: vf.certify.robust_probability(v, x, 1.0, samples=10).p,
    "margin": lambda v, x: vf.certify.margin(v, x, 3.0, samples=50).margin,
    "evaluate_elbo": lambda v, x: vf.training.evaluate_elbo(v, x).elbo,
    "likelihood_degradation": lambda v, x: vf.metrics.likelihood_degradation(v, x, -x),
    "explain": lambda v, x: vf.explain(v, x) and x.new_zeros(1),
    "encode": lambda v, x: v.encode(x)[1].detach(),
    "reconstruct": lambda v, x: v.reconstruct(x).detach(),
}


@pytest.fixture(scope="module")
def expected():
    plain = wrapped(Model())
    return {
        (name, rows): call(plain, X[:rows].clone())
        for name, call in PUBLIC.items()
        for rows in (1, 5)
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("style", MODELS)
def test_every_public_function_takes_them_and_leaves_x_alone(style, expected):
    vae = MODELS[style]()
    for (name, rows), result in expected.items():
        x = X[:rows].clone()
        with torch.jit.optimized_execution(False):  # whose compiler takes seconds for each function
            found = PUBLIC[name](vae, x)
        assert torch.equal(x, X[:rows]), name
        assert found.double().numpy() == pytest.approx(result.double().numpy(), abs=2e-3), name


def test_lowering_leaves_the_example_alone():
    """Also when the kept trace is compared again, on the caller's own rows."""
    mean = parts(InPlace())[0].eval()
    for _ in range(3):
        x = X.clone()
        assert torch.allclose(
            vf.ops.net_forward(X.flatten(1), vf.lower(mean, x)), mean(X.clone()), atol=1e-5
        )
        assert torch.equal(x, X)


@pytest.mark.parametrize("make", [InPlace, Written])
def test_latents_and_training_rows_stay(make):
    vae, x, z = wrapped(make()), X.clone(), torch.randn(4, 3)
    before = z.clone()
    vae.q(x)
    vae.decode(z), vae.g(z), vae.likelihood_at(z), vae.log_likelihood(x[:4], z)
    vf.training.fit(copy.deepcopy(vae), x, epochs=1, progress=False)
    vf.metrics.LatentClassifier.fit(vae, x, torch.arange(5) % 2)
    assert torch.equal(x, X)
    assert torch.equal(z, before)


def test_torchscript_is_said():
    found = vf.explain(MODELS["script"](), X)
    assert "TorchScript" in str(found.encoder_mean)
    assert "TorchScript" in str(found.decoder)


class Pair(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :2], x.flatten(1)[:, 2:4]


@pytest.mark.parametrize("name", ["encoder_mean", "encoder_logvar"])
def test_a_head_that_returns_a_pair_is_named(name):
    single = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    heads = {"encoder_mean": single, "encoder_logvar": single} | {name: Pair()}
    vae = vf.VAE(**heads, decoder=nn.Linear(2, 64))
    words = rf"{name} must return one tensor \[B, d\], got a tuple of 2; .* vaefast\.as_vae"
    with pytest.raises(TypeError, match=words):
        vf.attacks.latent(vae, X.abs(), eps=0.1)


def test_a_child_that_returns_a_pair_is_named():
    module = Model()
    module.encode = None
    module.encoder, module.fc_mu, module.fc_var = nn.Identity(), Pair(), Pair()
    with pytest.raises(TypeError, match=r"fc_mu must return one tensor \[B, d\], got a tuple of 2"):
        vf.as_vae(module, **OPTIONS).encode(X)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.optim.swa_utils.AveragedModel])
def test_a_wrapper_around_the_model_is_named(wrap):
    with pytest.raises(TypeError, match=f"{wrap.__name__} wraps a module .* pass model.module"):
        vf.as_vae(wrap(Model()))

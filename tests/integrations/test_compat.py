"""``compat=``: one step of ours against one step of each library, and whole searches."""

import numpy as np
import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.attacks.ascent import StepForm
from vaefast.attacks.ball import Ball
from vaefast.attacks.compat import LIBRARIES
from vaefast.attacks.random_start import Stream

ROWS, EVENT = 40, (2, 3, 3)
EPS, ALPHA = 0.4, 0.25


def case(dtype=torch.float64):
    """Centres, points of their balls, and gradients from 0 over tiny to large ones."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(ROWS, *EVENT, generator=generator, dtype=torch.float64)
    x = (1.3 * x - 0.15).clamp(0, 1)
    grad = torch.randn(ROWS, *EVENT, generator=generator, dtype=torch.float64)
    grad *= torch.logspace(-13, 2, ROWS, dtype=torch.float64).view(-1, 1, 1, 1)
    grad[0] = 0.0
    point = x + 0.5 * (torch.rand(ROWS, *EVENT, generator=generator, dtype=torch.float64) - 0.5)
    delta = point.clamp(0, 1) - x
    length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    point = x + delta * (EPS / length).clamp(max=1)
    return point.to(dtype), grad.to(dtype), x.to(dtype)


def ours(compat, norm, dtype=torch.float64):
    point, grad, x = case(dtype)
    library = LIBRARIES[compat]
    form = library.form if norm == "l2" else StepForm(order=library.form.order)
    full = torch.full((ROWS,), EPS, dtype=dtype)
    ball = Ball(x, full, norm, 0 * full, torch.ones_like(full))
    return form(ball, point, grad, grad.flatten(1).sum(1), torch.full_like(full, ALPHA))[0]


def by_foolbox(norm):
    attacks = pytest.importorskip("foolbox", reason="foolbox is not installed").attacks
    eagerpy = pytest.importorskip("eagerpy")
    point, grad, x = (eagerpy.astensor(t) for t in case())
    attack = attacks.L2PGD() if norm == "l2" else attacks.LinfPGD()
    moved = point + ALPHA * attack.normalize(grad, x=point, bounds=(0, 1))
    return attack.project(moved, x, EPS).clip(0, 1).raw


class Given(nn.Module):
    """Two logits whose mean cross-entropy has the gradient that is wanted, at one point."""

    def __init__(self, grad):
        super().__init__()
        self.grad, self.unused = 2.0 * len(grad) * grad, nn.Parameter(torch.zeros(1))

    def forward(self, x):
        rise = (self.grad * (x - x.detach())).flatten(1).sum(1)  # 0, with that gradient
        return torch.stack((torch.zeros_like(rise), rise), 1)


def by_torchattacks(norm):
    """From the centre, where the library's own loop begins without a random start."""
    library = pytest.importorskip("torchattacks", reason="torchattacks is not installed")
    _, grad, x = case()
    kind = library.PGDL2 if norm == "l2" else library.PGD
    attack = kind(Given(grad), eps=EPS, alpha=ALPHA, steps=1, random_start=False)
    return attack(x, torch.zeros(ROWS, dtype=torch.long))


def by_art(norm):
    pytest.importorskip("art", reason="ART is not installed")
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    point, grad, x = case(torch.float32)
    shape = {"input_shape": EVENT, "nb_classes": 2, "clip_values": (0.0, 1.0)}
    model = Given(grad)
    estimator = PyTorchClassifier(model, nn.CrossEntropyLoss(), device_type="cpu", **shape)
    which = 2 if norm == "l2" else np.inf
    attack = ProjectedGradientDescentPyTorch(
        estimator, norm=which, eps=EPS, eps_step=ALPHA, verbose=False
    )
    y = torch.zeros(ROWS, 2)
    y[:, 0] = 1.0
    return attack._compute_pytorch(point, x, y, None, EPS, ALPHA, False, torch.zeros_like(x))


def by_cleverhans(norm):
    utils = pytest.importorskip("cleverhans.torch.utils", reason="cleverhans is not installed")
    point, grad, x = case()
    which = 2 if norm == "l2" else np.inf
    moved = (point + utils.optimize_linear(grad, ALPHA, which)).clamp(0, 1)
    return (x + utils.clip_eta(moved - x, which, EPS)).clamp(0, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("library", [by_foolbox, by_torchattacks, by_art, by_cleverhans])
def test_one_step_is_the_librarys(library, norm, monkeypatch):
    name = library.__name__.removeprefix("by_")
    theirs = library(norm)
    single = name == "art"  # which knows float32 alone
    if name == "torchattacks":
        _, grad, x = case()
        monkeypatch.setitem(globals(), "case", lambda dtype: (x, grad, x))
    mine = ours(name, norm, torch.float32 if single else torch.float64)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=5e-7 if single else 1e-11)


def test_the_libraries_differ():
    """Or the test above would pass with one form for all."""
    found = [ours(name, "l2") for name in LIBRARIES]
    for number, one in enumerate(found):
        for other in found[number + 1 :]:
            assert (one - other).abs().max() > 1e-3


def test_starts_are_the_libraries():
    """ℓ2: volume-uniform, radius uniform, or a shortened cube, as (length / eps)."""
    rows = 4000
    x = torch.full((rows, 6), 0.5, dtype=torch.float64)
    full = torch.full((rows,), 0.3, dtype=torch.float64)
    ball = Ball(x, full, "l2", 0 * full, torch.ones_like(full))
    index = torch.arange(rows)
    radii = {
        name: (library.start["l2"](ball, Stream(0, index, 0 * index)) - x).norm(dim=1) / 0.3
        for name, library in LIBRARIES.items()
    }
    bound = 1.63 / rows**0.5
    grid = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
    for name, power in (("torchattacks", 1), ("foolbox", 6), ("art", 6)):
        assert (radii[name].sort().values ** power - grid).abs().max() < bound
    torch.manual_seed(0)
    cube = (2 * torch.rand(rows, 6, dtype=torch.float64) - 1).norm(dim=1).clamp(max=1)
    at = torch.linspace(0.3, 0.99, 50, dtype=torch.float64)[:, None]
    shares = [(sizes < at).double().mean(1) for sizes in (radii["cleverhans"], cube)]
    assert (shares[0] - shares[1]).abs().max() < bound * 2**0.5


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return vf.models.MLPVAE((1, 5, 5), (12,), 3).double().eval()


X = torch.rand(5, 1, 5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_whole_search_is_foolboxs(norm, vae):
    """With our objective for its loss, our start for its start: the same last point."""
    attacks = pytest.importorskip("foolbox", reason="foolbox is not installed").attacks
    fb, eagerpy = pytest.importorskip("foolbox"), pytest.importorskip("eagerpy")
    eps, reference = 0.3, [t.detach() for t in vae.encode(X)]
    skl = vf.attacks.DIVERGENCES["skl"]
    full = torch.full((5,), eps, dtype=torch.float64)
    ball = Ball(X, full, norm, 0 * full, torch.ones_like(full))
    start = LIBRARIES["foolbox"].start[norm](
        ball, Stream(0, torch.arange(5), torch.zeros(5).long())
    )

    class Latent(attacks.L2PGD if norm == "l2" else attacks.LinfPGD):
        def get_loss_fn(self, model, labels):
            return lambda x: eagerpy.astensor(skl(*vae.encode(x.raw), *reference).sum())

        def get_random_start(self, x0, epsilon):
            return eagerpy.astensor(start)

    model = fb.PyTorchModel(nn.Identity(), (0, 1))
    theirs = Latent().run(model, X, torch.zeros(5, dtype=torch.long), epsilon=eps)
    mine = vf.attacks.latent(vae, X, eps=eps, norm=norm, compat="foolbox")
    torch.testing.assert_close(mine.x_adv, theirs, rtol=0, atol=1e-9)
    assert len(mine.history) == 1 + {"linf": 40, "l2": 50}[norm]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("compat", LIBRARIES)
def test_both_attacks_take_every_library(compat, norm, vae):
    own = {"alpha": 0.05, "steps": 6} if compat == "cleverhans" else {}
    for attack in (vf.attacks.latent, vf.attacks.max_damage):
        found = attack(vae, X, eps=0.2, norm=norm, compat=compat, **own)
        assert (found.perturbation_norm <= 0.2 + 1e-9).all()
        assert not found.failed.any()
        torch.testing.assert_close(
            found.history[-1],
            found.objective,
            rtol=1e-3 if attack is vf.attacks.latent else 9,
            atol=0,
        )


def test_mistakes(vae):
    with pytest.raises(ValueError, match="compat must be one of"):
        vf.attacks.latent(vae, X, eps=0.1, compat="advertorch")
    with pytest.raises(ValueError, match="cleverhans has no default of steps; pass steps="):
        vf.attacks.latent(vae, X, eps=0.1, compat="cleverhans")
    with pytest.raises(ValueError, match="got 'l1'"):
        vf.attacks.latent(vae, X, eps=0.1, norm="l1", compat="art")
    with pytest.raises(TypeError, match="eps is missing"):
        vf.attacks.latent(vae, X, compat="art")
    with pytest.raises(ValueError, match="so does preset"):
        vf.attacks.latent(vae, X, preset="kuzina2022", compat="art", eps=0.1)

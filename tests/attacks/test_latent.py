"""Latent attacks: the optimum where it is known, and what must hold for every setting."""

import itertools

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast import attacks
from vaefast.attacks.divergences import DIVERGENCES

NORMS = ("linf", "l2")


def divergence_at(vae, name, x_adv, reference):
    return DIVERGENCES[name](*vae.encode(x_adv), *vae.encode(reference))


@pytest.mark.parametrize("alpha", [None, 3.0])
def test_linear_encoder_reaches_the_largest_singular_value(linear_vae, make_images, alpha):
    """max ‖A δ‖² over ‖δ‖₂ ≤ eps is eps²·λ_max(AᵀA); long steps are power iteration on AᵀA."""
    vae, a = linear_vae()
    result = attacks.latent(
        vae,
        make_images(4),
        eps=0.3,
        norm="l2",
        divergence="means",
        alpha=alpha,
        steps=100,
        restarts=4,
        low=-9.0,
        high=9.0,
    )
    optimum = 0.3**2 * torch.linalg.eigvalsh(a @ a.T)[-1]
    assert (result.objective > 0.99 * optimum).all()
    assert (result.objective <= optimum * (1 + 1e-9)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_default_steps_are_as_strong_as_constant_ones(make_vae, make_images, norm):
    vae, x = make_vae(), make_images(20)
    default = attacks.latent(vae, x, eps=0.5, norm=norm, steps=20)
    for alpha in (0.5 * 2.5 / 20, 0.1, 0.5):
        constant = attacks.latent(vae, x, eps=0.5, norm=norm, steps=20, alpha=alpha)
        assert default.objective.mean() > 0.98 * constant.objective.mean()


def test_linear_encoder_and_linf_reaches_the_best_corner(linear_vae, make_images):
    """For one latent, max |a·δ|² over ‖δ‖_∞ ≤ eps is (eps‖a‖₁)²."""
    vae, a = linear_vae(latents=1)
    x = make_images(4)
    result = attacks.latent(vae, x, eps=0.1, divergence="means", steps=20, low=-9.0, high=9.0)
    optimum = (0.1 * a.abs().sum()) ** 2
    torch.testing.assert_close(result.objective, optimum.expand(4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_ball_and_box_hold_and_the_objective_belongs_to_x_adv(
    make_vae, make_images, norm, divergence, dtype
):
    vae, x = make_vae(dtype), make_images(6, dtype)
    eps = torch.linspace(0.01, 0.4, 6, dtype=dtype)
    result = attacks.latent(vae, x, eps=eps, norm=norm, divergence=divergence, steps=8, restarts=3)
    assert result.x_adv.shape == x.shape
    assert result.x_adv.dtype == dtype
    assert (result.x_adv >= 0).all()
    assert (result.x_adv <= 1).all()
    assert (result.perturbation_norm <= eps.double() * (1 + 1e-6) + 1e-7).all()
    delta = (result.x_adv - x).double().flatten(1)
    order = torch.inf if norm == "linf" else 2
    torch.testing.assert_close(
        result.perturbation_norm, torch.linalg.vector_norm(delta, ord=order, dim=1)
    )
    expected = divergence_at(vae, divergence, result.x_adv, x).detach()
    torch.testing.assert_close(result.objective, expected, rtol=1e-5, atol=1e-9)
    assert (result.objective > 0).all()
    assert not result.failed.any()
    assert result.reproducible == ("bits" if vf.supports("net_vjp", "cpp") else "round-off")


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_targeted_attacks_come_closer_to_the_target(make_vae, make_images, norm, divergence):
    vae, x, target = make_vae(), make_images(6), make_images(6, seed=9)
    result = attacks.latent(
        vae, x, eps=0.3, norm=norm, divergence=divergence, target=target, steps=40
    )
    before = divergence_at(vae, divergence, x, target).detach()
    after = divergence_at(vae, divergence, result.x_adv, target).detach()
    assert (after < before).all()
    torch.testing.assert_close(result.objective, -after)


def test_random_corners_of_the_ball_find_nothing_stronger(make_vae, make_images):
    vae, x = make_vae(), make_images(2)
    result = attacks.latent(vae, x, eps=0.2, steps=40, restarts=50)
    corners = torch.rand(500, 2, *x.shape[1:]).round().double() * 0.4 - 0.2
    points = (x + corners).clamp(0, 1).flatten(0, 1)
    found = divergence_at(vae, "skl", points, x.repeat(500, 1, 1, 1)).reshape(500, 2).amax(0)
    assert (result.objective >= found).all()


def test_more_steps_never_lower_the_best_objective(make_vae, make_images):
    vae, x = make_vae(), make_images(5)
    options = {"eps": 0.3, "alpha": 0.1, "restarts": 2}
    values = [attacks.latent(vae, x, steps=n, **options).objective for n in (1, 5, 20, 60)]
    for fewer, more in itertools.pairwise(values):
        assert (more >= fewer - 1e-12).all()


def test_more_restarts_never_lower_the_best_objective(make_vae, make_images):
    vae, x = make_vae(), make_images(5)
    values = [attacks.latent(vae, x, eps=0.3, steps=4, restarts=n).objective for n in (1, 3, 9)]
    for fewer, more in itertools.pairwise(values):
        assert (more >= fewer - 1e-12).all()


def test_history_is_that_of_the_best_restart(make_vae, make_images):
    vae, x = make_vae(), make_images(5)
    result = attacks.latent(vae, x, eps=0.3, steps=12, restarts=3)
    everything = attacks.latent(vae, x, eps=0.3, steps=12, restarts=3, keep="all")
    assert result.history.shape == (13, 5)
    torch.testing.assert_close(result.history.amax(0), result.objective)
    rows = torch.arange(5)
    torch.testing.assert_close(result.history, everything.history[:, rows, result.best_restart])
    assert torch.equal(result.best_restart, everything.objective.argmax(1))


@pytest.mark.parametrize("norm", NORMS)
def test_the_best_iterate_is_returned_not_the_last(make_vae, make_images, norm):
    """The target lies inside the ball and the steps are long: the search jumps around it."""
    vae, x = make_vae(), make_images(20)
    target = (x + 0.05 * (make_images(20, seed=3) - 0.5)).clamp(0, 1)
    result = attacks.latent(vae, x, eps=0.5, alpha=0.3, norm=norm, target=target, steps=7)
    best = result.history.amax(0)
    assert (result.history[-1] < best).any()
    torch.testing.assert_close(result.objective, best)


def test_keep_all_returns_every_restart(make_vae, make_images):
    vae, x = make_vae(), make_images(4)
    result = attacks.latent(vae, x, eps=0.2, steps=5, restarts=3, keep="all")
    assert result.x_adv.shape == (4, 3, *x.shape[1:])
    assert result.objective.shape == result.perturbation_norm.shape == (4, 3)
    assert result.history.shape == (6, 4, 3)
    for restart in range(3):
        expected = divergence_at(vae, "skl", result.x_adv[:, restart], x).detach()
        torch.testing.assert_close(result.objective[:, restart], expected)
    assert len(result.x_adv[0].unique(dim=0)) == 3


def logit_difference(logits, classes):
    """The largest other logit above that of each row's class."""
    others = [torch.cat((row[:c], row[c + 1 :])).max() for row, c in zip(logits, classes.tolist())]
    return (torch.stack(others) - logits[torch.arange(len(logits)), classes]).detach()


class TestClassifier:
    def classifier(self, classes=3):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            return nn.Linear(3, classes).double()

    def test_untargeted_leaves_the_predicted_class(self, make_vae, make_images):
        vae, x, h = make_vae(), make_images(6), self.classifier()
        result = attacks.latent(vae, x, eps=0.5, divergence="clf", classifier=h, steps=30)
        predicted = h(vae.encode(x)[0]).argmax(1)
        before = logit_difference(h(vae.encode(x)[0]), predicted)
        after = logit_difference(h(vae.encode(result.x_adv)[0]), predicted)
        assert (before < 0).all()
        assert (after > before).all()
        torch.testing.assert_close(result.objective, after)

    @pytest.mark.parametrize("as_image", [False, True])
    def test_targeted_raises_the_logit_of_the_target(self, make_vae, make_images, as_image):
        vae, x, h = make_vae(), make_images(6), self.classifier()
        images = make_images(6, seed=4)
        predicted = h(vae.encode(images)[0]).argmax(1)
        target = images if as_image else predicted
        result = attacks.latent(
            vae, x, eps=0.4, divergence="clf", classifier=h, target=target, steps=30
        )
        before = logit_difference(h(vae.encode(x)[0]), predicted)
        after = logit_difference(h(vae.encode(result.x_adv)[0]), predicted)
        assert (after < before).all()
        torch.testing.assert_close(result.objective, -after)

    def test_bad_arguments(self, make_vae, make_images):
        vae, x, h = make_vae(), make_images(2), self.classifier()
        with pytest.raises(TypeError, match="needs classifier="):
            attacks.latent(vae, x, eps=0.1, divergence="clf")
        with pytest.raises(ValueError, match='classifier is for divergence="clf"'):
            attacks.latent(vae, x, eps=0.1, classifier=h)
        noisy = nn.Sequential(h, nn.Dropout()).train()
        for bad, target, error, message in [
            (h, torch.tensor([0, 3]), ValueError, r"must lie in \[0, 3\), got 0 to 3"),
            (h, torch.tensor([0, 1]).int(), TypeError, r"target\.long\(\)"),
            (h, torch.tensor([0]), ValueError, r"target must be \[2\] like the rows of x"),
            (lambda m: m.sum(1), None, ValueError, r"classifier must return logits \[n, K\]"),
            (lambda m: m[:, :1], None, ValueError, r"at least 2 classes, got \[n, 1\]"),
            (noisy, None, RuntimeError, "training mode"),
        ]:
            options = {"divergence": "clf", "classifier": bad, "target": target}
            with pytest.raises(error, match=message):
                attacks.latent(vae, x, eps=0.1, **options)


def test_radius_zero_returns_x(make_vae, make_images):
    vae, x = make_vae(torch.float32), make_images(4, torch.float32)
    for norm in NORMS:
        result = attacks.latent(vae, x, eps=0.0, norm=norm, steps=3)
        assert torch.equal(result.x_adv, x)
        assert (result.perturbation_norm == 0).all()
        torch.testing.assert_close(result.objective, torch.zeros(4).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_zero_gradients_do_not_make_nan(make_images, norm):
    """An encoder that is flat on [0, 1]: nothing to climb, the start is returned and said."""
    from vaefast.models.vae import VAE

    class Flat(nn.Module):
        def forward(self, x):
            return torch.relu(x.flatten(1) - 2.0)[:, :2]

    vae = VAE(encoder_mean=Flat(), encoder_logvar=Flat(), decoder=nn.Linear(2, 16).double()).eval()
    with pytest.warns(attacks.AttackWarning, match=r"3 of 3 rows failed .* no gradient"):
        result = attacks.latent(vae, make_images(3), eps=0.1, norm=norm, steps=5)
    assert result.x_adv.isfinite().all()
    assert result.failed.all()
    assert (result.best_restart == 0).all()
    assert (result.objective == 0).all()


@pytest.mark.parametrize("attack", [attacks.latent, attacks.max_damage])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_models_are_searched_in_float32(attack, dtype, make_vae, make_images):
    vae = make_vae(torch.bfloat16)
    encode, seen = vae.encode, set()
    vae.encode = lambda x: (seen.add(x.dtype), encode(x))[1]
    x = make_images(3, dtype)
    result = attack(vae, x, eps=0.2, norm="linf", steps=5)
    assert seen == {torch.float32}
    assert result.x_adv.dtype == dtype
    assert result.objective.dtype == torch.float64
    rounding = 1e-6 if dtype == torch.float32 else 2.0**-8
    assert (result.perturbation_norm <= 0.2 + rounding).all()
    if attack is attacks.latent:  # the value of the point as it was rounded
        expected = divergence_at(vae, "skl", result.x_adv.float(), x.float())
        torch.testing.assert_close(result.objective, expected.detach())

"""Attacks through the defence: what they maximise, which gradient found it, and on which draws."""

from types import SimpleNamespace

import pytest
import torch

from vaefast import attacks, hmc
from vaefast.attacks.measures import ImageDistance, LatentDistance
from vaefast.attacks.pathways import LAST, PATHWAYS, UNDEFENDED, Defended, _Pairs
from vaefast.hmc.through import Defending
from vaefast.models.prepare import prepare
from vaefast.philox import seed_apart

NAMES = (UNDEFENDED, *PATHWAYS)
DEFENCE = {"steps": 6, "warmup": 4, "leapfrog": 3, "chains": 2}
QUICK = {"eps": 0.3, "steps": 4, "through_defence": DEFENCE, "seed": 7}
SEARCH, SELECTION, REPORT = (seed_apart(7, k) for k in range(1, 4))


def distance(vae, x_adv, x, seed, defence=DEFENCE):
    """Mean over the chains of ‖g(z_T(x')) − g(z_T(x))‖, chains with the same random numbers."""
    a, b = (hmc.defend(vae, image, seed=seed, **defence).reconstruction for image in (x_adv, x))
    return (a - b).flatten(2).norm(dim=2).double().mean(1)


@pytest.mark.parametrize("gradient", [None, *NAMES])
@pytest.mark.parametrize("opaque", [False, True])
def test_the_objective_is_what_defend_leaves_on_draws_of_its_own(
    make_vae, make_images, gradient, opaque
):
    vae, x = make_vae(opaque=opaque), make_images(3)
    if opaque and gradient in ("chain", "last"):
        with pytest.raises(ValueError, match='use "posterior" or "spsa"'):
            attacks.max_damage(vae, x, gradient=gradient, **QUICK)
        return
    result = attacks.max_damage(vae, x, gradient=gradient, **QUICK)
    assert (result.perturbation_norm <= 0.3 + 1e-9).all()
    assert ((result.x_adv >= 0) & (result.x_adv <= 1)).all()
    torch.testing.assert_close(result.objective, distance(vae, result.x_adv, x, REPORT))
    searched = distance(vae, result.x_adv, x, SEARCH)
    found = torch.tensor([name != UNDEFENDED for name in result.gradient])
    torch.testing.assert_close(result.history[-1][found], searched[found])
    assert result.history[:, ~found].isnan().all()  # of another objective
    assert len(result.gradient) == 3
    assert set(result.gradient) <= ({gradient} if gradient else {*NAMES} - {"last"})
    assert result.reproducible == "round-off"


def test_of_each_row_the_gradient_is_chosen_on_draws_that_do_not_report(make_vae, make_images):
    vae, x = make_vae(), make_images(4)
    every = {name: attacks.max_damage(vae, x, gradient=name, **QUICK) for name in NAMES}
    chosen = attacks.max_damage(vae, x, **QUICK)
    selection = {n: distance(vae, r.x_adv, x, SELECTION) for n, r in every.items() if n != "last"}
    for row, name in enumerate(chosen.gradient):
        assert torch.equal(chosen.x_adv[row], every[name].x_adv[row])
        assert selection[name][row] == max(value[row] for value in selection.values())


def test_it_beats_the_attack_that_knows_no_defence(make_vae, make_images):
    vae, x = make_vae(), make_images(8)
    search = {"eps": 1.0, "steps": 30, "norm": "l2"}
    many = {**DEFENCE, "chains": 16}
    plain = attacks.max_damage(vae, x, **search)
    adaptive = attacks.max_damage(vae, x, **search, through_defence=many)
    before, after = (distance(vae, r.x_adv, x, 12345, many).mean() for r in (plain, adaptive))
    assert after > before
    assert len(set(adaptive.gradient)) > 1


def test_restarts_and_all_of_them(make_vae, make_images):
    vae, x = make_vae(), make_images(2)
    result = attacks.max_damage(vae, x, restarts=3, keep="all", gradient="last", **QUICK)
    assert result.x_adv.shape == (2, 3, *x.shape[1:])
    for restart in range(3):
        wanted = distance(vae, result.x_adv[:, restart], x, REPORT)
        torch.testing.assert_close(result.objective[:, restart], wanted)
    single = attacks.max_damage(vae, x, restarts=3, gradient="last", **QUICK)
    best = result.objective[torch.arange(2), single.best_restart]
    torch.testing.assert_close(single.objective, best)


def test_a_row_by_itself_is_the_row_in_the_batch(make_vae, make_images):
    vae, x = make_vae(), make_images(3)
    whole = attacks.max_damage(vae, x, **QUICK)
    alone = attacks.max_damage(vae, x[1:2], index=torch.tensor([1]), **QUICK)
    torch.testing.assert_close(alone.objective[0], whole.objective[1])
    assert alone.gradient[0] == whole.gradient[1]


def test_a_row_that_is_not_finite_fails_alone(make_vae, make_images):
    vae, x = make_vae(), make_images(3)
    good = attacks.max_damage(vae, x, **QUICK)
    x[1, 0] = torch.nan
    with pytest.warns(attacks.AttackWarning, match="1 of 3 rows failed"):
        result = attacks.max_damage(vae, x, **QUICK)
    assert result.failed.tolist() == [False, True, False]
    assert result.objective[1].isnan()
    torch.testing.assert_close(result.objective[::2], good.objective[::2])


def test_latents_and_a_target(make_vae, make_images):
    vae, x = make_vae(), make_images(4)
    away = attacks.latent(vae, x, gradient="chain", **QUICK)
    ends = [hmc.defend(vae, image, seed=REPORT, **DEFENCE).z for image in (away.x_adv, x)]
    squared = (ends[0] - ends[1]).square().sum(2).mean(1)
    torch.testing.assert_close(away.objective, squared)
    target = x.flip(0)
    calm = {"steps": 40, "warmup": 0, "adapt": None, "step_size": 0.3, "leapfrog": 5}  # no luck
    search = {**QUICK, "steps": 20, "through_defence": calm}
    near = attacks.latent(vae, x, target=target, gradient="chain", **search)
    assert (near.history[-1] > 0.5 * near.history[0]).all()
    assert (near.objective < 0).all()


def test_a_class_is_flipped_after_the_defence(make_vae, make_images):
    vae, x = make_vae(), make_images(6)

    def classifier(mean):
        return torch.stack((mean[:, 0], -mean[:, 0]), 1)

    result = attacks.latent(
        vae, x, divergence="clf", classifier=classifier, gradient="chain", **{**QUICK, "steps": 20}
    )
    own = classifier(vae.encode(x)[0]).argmax(1)
    z = hmc.defend(vae, result.x_adv, seed=REPORT, **DEFENCE).z
    logits = classifier(z.flatten(0, 1)).view(6, 2, 2)
    difference = torch.where(own[:, None] == 0, 1.0, -1.0) * (logits[..., 1] - logits[..., 0])
    torch.testing.assert_close(result.objective, difference.mean(1))


def test_no_rows_and_a_posterior_of_one_draw(make_vae, make_images):
    vae, x = make_vae(), make_images(2)
    assert len(attacks.max_damage(vae, x[:0], **QUICK).x_adv) == 0
    one = {**QUICK, "through_defence": {**DEFENCE, "steps": 1}}
    assert "posterior" not in attacks.max_damage(vae, x, **one).gradient
    with pytest.raises(ValueError, match="needs at least 2 transitions after the warm-up"):
        attacks.max_damage(vae, x, gradient="posterior", **one)


def test_a_chaotic_chain_says_so(make_vae, make_images, monkeypatch):
    vae, x = make_vae(), make_images(2)
    grown = torch.logspace(0, 4, 11, dtype=torch.float64)[:, None].expand(11, 2)
    monkeypatch.setattr(Defending, "growth", lambda self, part, *, seed: grown)
    with pytest.warns(attacks.AttackWarning, match=r"1e\+04 times as large 10 transitions"):
        attacks.max_damage(vae, x, gradient="chain", **QUICK)


def test_what_has_no_density_and_what_has_no_defence_is_refused(make_vae, make_images):
    vae, x = make_vae(), make_images(2)
    with pytest.raises(ValueError, match="divergence must be"):
        attacks.latent(vae, x, divergence="skl", **QUICK)
    for attack in (attacks.latent, attacks.max_damage):
        with pytest.raises(ValueError, match="is for an attack with through_defence="):
            attack(vae, x, eps=0.1, gradient="chain")
        with pytest.raises(ValueError, match="gradient must be"):
            attack(vae, x, **QUICK, gradient="steep")


def test_a_long_chain_goes_back_through_its_last_transitions(make_vae, make_images):
    vae, x = make_vae(), make_images(2)
    long = {"steps": LAST, "warmup": 2, "leapfrog": 2}
    names = [
        attacks.max_damage(vae, x, eps=0.1, steps=1, through_defence=long, gradient=name).gradient
        for name in ("chain", "last")
    ]
    assert names == [("chain",) * 2, ("last",) * 2]


def test_pairs_estimate_the_gradient_of_a_linear_function():
    slope = torch.linspace(-1.0, 2.0, 12, dtype=torch.float64)
    part = SimpleNamespace(x=torch.zeros(1, 12), index=torch.arange(1))
    of = Defended(part, None, None, None, torch.ones(1), "linf", 3)  # type: ignore[arg-type]
    object.__setattr__(of, "value", lambda point: (point * slope).sum(1))
    pairs, point = _Pairs(of), torch.rand(1, 12, dtype=torch.float64)
    mean = torch.stack([pairs.gradient(point) for _ in range(500)]).mean(0)[0]
    torch.testing.assert_close(mean, slope, rtol=0, atol=0.25)


def test_the_posteriors_gradient_is_that_of_its_expectation():
    """z|x is Gaussian: E‖z − c‖² has the derivative 2 (m − c)ᵀ ∂m/∂x."""
    from torch import nn

    import vaefast as vf

    torch.manual_seed(0)
    decoder = nn.Linear(2, 6)
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(6, 2)) for _ in range(2)]
    vae = vf.VAE(
        encoder_mean=heads[0],
        encoder_logvar=heads[1],
        decoder=decoder,
        event_shape=(6,),
        likelihood="gaussian",
        obs_std=0.7,
    )
    vae = vae.double().eval().requires_grad_(False)
    x = torch.randn(1, 6, dtype=torch.float64)
    A, b = decoder.weight.double(), decoder.bias.double()
    V = torch.linalg.inv(torch.eye(2, dtype=torch.float64) + A.T @ A / 0.49)
    into_mean = V @ A.T / 0.49  # [2, 6]
    m = into_mean @ (x[0] - b)
    part = prepare(vae, x)
    options = {"steps": 4000, "warmup": 100, "leapfrog": 8, "chains": 4}
    defending = Defending.checked(part, options)
    c = torch.tensor([3.0, -2.0], dtype=torch.float64)
    reference = c.expand(1, 4, 2)
    of = Defended(part, defending, LatentDistance(None), reference, torch.ones(1), "l2", 5)
    point = x.clone().requires_grad_()
    value = PATHWAYS["posterior"](of)(point)
    (grad,) = torch.autograd.grad(value.sum(), point)
    wanted = 2 * (m - c) @ into_mean
    torch.testing.assert_close(grad[0], wanted, rtol=0, atol=0.08 * wanted.abs().max().item())


def test_the_measure_of_an_image_is_the_distance_of_reconstructions(make_vae, make_images):
    vae, x = make_vae(), make_images(2)
    part = prepare(vae, x)
    z = torch.randn(4, 3, dtype=torch.float64)
    measure = ImageDistance()
    reference = measure.reference(part, lambda part, image: z)
    assert not measure(part, z, reference).any()
    moved = vae.g(z + 1).flatten(1) - vae.g(z).flatten(1)
    torch.testing.assert_close(measure(part, z + 1, reference), moved.norm(dim=1))

"""Auto-PGD as ``optimizer="apgd"``: against Algorithm 1 row by row, and against plain steps."""

import pytest
import torch

from vaefast import attacks
from vaefast.attacks.apgd import checkpoints
from vaefast.attacks.ball import Ball
from vaefast.attacks.divergences import DIVERGENCES
from vaefast.attacks.random_start import Stream, uniform_in_ball


def ball_of(x, eps, norm):
    ends = torch.zeros(len(x), dtype=x.dtype), torch.ones(len(x), dtype=x.dtype)
    return Ball(x, torch.full((len(x),), eps, dtype=x.dtype), norm, *ends)


def published(vae, x, start, *, eps, norm, steps):
    """Croce and Hein's Algorithm 1 with their checkpoints, one row, plain torch."""
    reference = [t.detach() for t in vae.encode(x)]
    ball, points = ball_of(x, eps, norm), [start]

    def value_and_gradient(point):
        point = point.clone().requires_grad_()
        value = DIVERGENCES["skl"](*vae.encode(point), *reference).sum()
        return float(value.detach()), torch.autograd.grad(value, point)[0]

    def projected(point):
        if norm == "linf":
            return point.clamp(x - eps, x + eps).clamp(0, 1)
        delta = point - x
        return (x + delta * min(1.0, eps / float(delta.norm()))).clamp(0, 1)

    values, size = [value_and_gradient(start)[0]], 2.0 * eps
    best, best_at_check, size_at_check, window = (values[0], start), -1.0, -1.0, 0
    point, before = start, start
    for step in range(steps):
        _, grad = value_and_gradient(point)
        unit = grad.sign() if norm == "linf" else grad / grad.norm()
        z = projected(point + size * unit)
        share = 0.75 if step else 1.0
        moved = projected(point + share * (z - point) + (1 - share) * (point - before))
        point, before = moved, point
        values.append(value_and_gradient(point)[0])
        points.append(point)
        if values[-1] > best[0]:
            best = values[-1], point
        if step + 1 in checkpoints(steps):
            rises = sum(b > a for a, b in zip(values[window:-1], values[window + 1 :]))
            few = rises <= 0.75 * (step + 1 - window)
            stale = size == size_at_check and best[0] == best_at_check
            size_at_check, best_at_check, window = size, best[0], step + 1
            if few or stale:
                size, point = size / 2, best[1]
    del ball
    return best, values


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_is_the_published_algorithm(norm, make_vae, make_images):
    vae, x, steps = make_vae(), make_images(4), 40
    eps = 0.15 if norm == "linf" else 0.5
    result = attacks.latent(vae, x, eps=eps, norm=norm, steps=steps, optimizer="apgd")
    index = torch.arange(4)
    start = uniform_in_ball(ball_of(x, eps, norm), Stream(0, index, torch.zeros_like(index)))
    for row in range(4):
        one = slice(row, row + 1)
        (value, point), values = published(vae, x[one], start[one], eps=eps, norm=norm, steps=steps)
        torch.testing.assert_close(
            result.history[:, row], torch.tensor(values, dtype=torch.float64), rtol=1e-7, atol=1e-9
        )
        assert float(result.objective[row]) == pytest.approx(value, rel=1e-7)
        torch.testing.assert_close(result.x_adv[one], point, rtol=0, atol=1e-7)


def test_checkpoints_are_the_published_ones():
    assert sorted(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sorted(checkpoints(1)) == [1]
    assert checkpoints(0) == set()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_needs_no_step_length(norm, make_vae, make_images):
    """Constant steps that are too long or too short find less; a bad first step is mended."""
    vae, x = make_vae(), make_images(16)
    eps = {"linf": 0.1, "l2": 0.4, "l1": 1.0}[norm]
    options = {"eps": eps, "norm": norm, "steps": 60}
    auto = attacks.latent(vae, x, optimizer="apgd", **options).objective
    for alpha in (2 * eps, 0.002 * eps):
        constant = attacks.latent(vae, x, alpha=alpha, **options).objective
        assert (auto >= constant - 1e-9).float().mean() > 0.9
        assert auto.mean() > (1.02 if alpha < eps else 1.0 - 1e-9) * constant.mean()
    shrinking = attacks.latent(vae, x, **options).objective
    assert auto.mean() > 0.97 * shrinking.mean()


def test_rows_decide_by_themselves(make_vae, make_images):
    vae, x = make_vae(), make_images(5)
    options = {"eps": 0.3, "norm": "l2", "steps": 30, "restarts": 2, "optimizer": "apgd"}
    together = attacks.latent(vae, x, **options)
    for row in range(5):
        alone = attacks.latent(vae, x[row : row + 1], index=torch.tensor([row]), **options)
        torch.testing.assert_close(alone.x_adv[0], together.x_adv[row], rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_max_damage_takes_it(norm, make_vae, make_images):
    vae, x = make_vae(), make_images(6)
    options = {"eps": 0.2, "norm": norm, "steps": 40}
    auto = attacks.max_damage(vae, x, optimizer="apgd", **options)
    plain = attacks.max_damage(vae, x, **options)
    assert (auto.perturbation_norm <= 0.2 + 1e-9).all()
    assert auto.objective.mean() > 0.95 * plain.objective.mean()


def test_mistakes(make_vae, make_images):
    vae, x = make_vae(), make_images(2)
    with pytest.raises(ValueError, match="optimizer must be one of"):
        attacks.latent(vae, x, eps=0.1, optimizer="lbfgs")
    with pytest.raises(ValueError, match="leave one of them out"):
        attacks.latent(vae, x, eps=0.1, optimizer="apgd", compat="art")

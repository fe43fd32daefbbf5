"""``penalty=``: the soft attack against Adam in plain torch, and what it trades."""

from itertools import pairwise

import pytest
import torch

from vaefast import attacks, philox
from vaefast.attacks.divergences import DIVERGENCES
from vaefast.philox import Use


def plain(vae, x, target, start, penalty, steps, alpha):
    """torch's own Adam on −D − λ‖δ‖ for one input, clipped to the box after every step."""
    reference = [t.detach() for t in vae.encode(target)]
    point = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([point], lr=alpha, maximize=True)
    history = []
    for step in range(steps + 1):
        distance = (point - x).flatten().norm()
        value = -DIVERGENCES["kl_reverse"](*vae.encode(point), *reference).sum()
        value = value - penalty * distance
        history.append(float(value.detach()))
        if step == steps:
            return torch.tensor(history, dtype=torch.float64)
        optimizer.zero_grad()
        (point.grad,) = torch.autograd.grad(value, point)
        optimizer.step()
        with torch.no_grad():
            point.clamp_(0, 1)


def test_it_is_adam_on_the_penalised_objective(make_vae, make_images):
    vae, x, target = make_vae(), make_images(3), make_images(3, seed=5)
    options = {"target": target, "divergence": "kl_reverse", "penalty": 0.7, "steps": 25}
    result = attacks.latent(vae, x, alpha=0.02, **options)
    for row in range(3):
        one = slice(row, row + 1)
        noise = philox.normal(16, seed=0, index=torch.tensor([row]), lane=0, use=Use.START)
        start = (x[one] + 0.01 * noise.reshape(1, 1, 4, 4)).clamp(0, 1)
        history = plain(vae, x[one], target[one], start, 0.7, 25, 0.02)
        torch.testing.assert_close(result.history[:, row], history, rtol=1e-9, atol=1e-9)


def test_the_objective_and_the_norm_are_of_the_point(make_vae, make_images):
    vae, x, target = make_vae(), make_images(4), make_images(4, seed=5)
    penalty = torch.tensor([0.0, 0.1, 1.0, 10.0], dtype=torch.float64)
    result = attacks.latent(vae, x, target=target, penalty=penalty)
    reference = [t.double() for t in vae.encode(target)]
    distance = DIVERGENCES["skl"](*vae.encode(result.x_adv), *reference)
    expected = -distance - penalty * result.perturbation_norm
    torch.testing.assert_close(result.objective, expected.detach(), rtol=1e-9, atol=1e-12)
    assert result.history.shape == (201, 4)


def test_more_penalty_moves_less(make_vae, make_images):
    vae, x, target = make_vae(), make_images(6), make_images(6, seed=5)
    norms = [
        attacks.latent(vae, x, target=target, penalty=penalty).perturbation_norm
        for penalty in (0.0, 0.3, 3.0, 100.0)
    ]
    for more, less in pairwise(norms):
        assert (less <= more + 1e-3).all()
    assert (norms[-1] < 0.06).all()


def test_untargeted_by_classes_and_in_a_ball(make_vae, make_images):
    vae, x = make_vae(), make_images(4)
    free = attacks.latent(vae, x, penalty=0.001, steps=60)
    assert (free.objective > 0).all()
    held = attacks.latent(vae, x, penalty=0.1, steps=60, eps=0.2)
    assert (held.perturbation_norm <= 0.2 + 1e-9).all()
    classifier = torch.nn.Linear(3, 4).double()
    classes = torch.tensor([0, 1, 2, 3])
    found = attacks.latent(
        vae, x, divergence="clf", classifier=classifier, target=classes, penalty=0.1, steps=60
    )
    assert found.objective.isfinite().all()


def test_mistakes(make_vae, make_images):
    vae, x = make_vae(), make_images(2)
    with pytest.raises(ValueError, match="penalty must be at least 0"):
        attacks.latent(vae, x, penalty=-1.0)
    with pytest.raises(ValueError, match='needs norm="l2"'):
        attacks.latent(vae, x, penalty=1.0, norm="linf")
    with pytest.raises(ValueError, match="leave one"):
        attacks.latent(vae, x, penalty=1.0, preset="mist", target=x)
    with pytest.raises(ValueError, match="through_defence"):
        attacks.latent(vae, x, penalty=1.0, through_defence={"steps": 2})

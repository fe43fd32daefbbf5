"""Random starts: uniform in the ball, one stream per input and restart."""

import pytest
import torch

from vaefast.attacks.ball import Ball, perturbation_norm
from vaefast.attacks.random_start import Stream, gaussian, uniform_in_ball, zero

ROWS, PIXELS = 4000, 3


def make_ball(norm, *, low=-10.0, high=10.0, eps=0.5, dtype=torch.float64):
    x = torch.full((ROWS, PIXELS), 0.25, dtype=dtype)
    low, high, eps = (torch.full((ROWS,), value, dtype=dtype) for value in (low, high, eps))
    return Ball(x, eps, norm, low, high)


def make_stream(seed=0, first=0, restart=0):
    index = torch.arange(first, first + ROWS)
    return Stream(seed, index, torch.full_like(index, restart))


@pytest.mark.parametrize(("norm", "dimension"), [("linf", PIXELS), ("l2", PIXELS)])
def test_radius_is_distributed_as_volume(norm, dimension):
    """P(‖δ‖ ≤ t·eps) = t^D for a uniform point of either ball."""
    ball = make_ball(norm)
    t = perturbation_norm(uniform_in_ball(ball, make_stream()), ball.x, norm) / ball.eps
    assert (t <= 1 + 1e-12).all()
    u = (t**dimension).sort().values
    empirical = (torch.arange(ROWS, dtype=torch.float64) + 0.5) / ROWS
    assert (u - empirical).abs().max() < 1.95 / ROWS**0.5  # Kolmogorov-Smirnov at 0.001


def test_l2_direction_has_no_preference_and_is_independent_of_the_radius():
    ball = make_ball("l2")
    delta = uniform_in_ball(ball, make_stream()) - ball.x
    radius = delta.norm(dim=1, keepdim=True)
    direction = delta / radius
    together = torch.cat([radius, direction.square()], 1)
    assert torch.corrcoef(together.T)[0, 1:].abs().max() < 4 / ROWS**0.5
    covariance = direction.T @ direction / ROWS
    torch.testing.assert_close(covariance, torch.eye(3).double() / 3, atol=0.02, rtol=0)
    assert direction.mean(0).abs().max() < 0.04


def test_starts_stay_in_the_box():
    ball = make_ball("linf", low=0.2, high=0.3)
    start = uniform_in_ball(ball, make_stream())
    assert start.min() == 0.2
    assert start.max() == 0.3


def test_streams_depend_on_seed_index_and_restart_only():
    ball = make_ball("linf")
    whole = uniform_in_ball(ball, make_stream())
    for other in (make_stream(seed=1), make_stream(restart=1), make_stream(first=1)):
        assert (uniform_in_ball(ball, other) != whole).any(1).all()
    part = Ball(*(t[7:9] if isinstance(t, torch.Tensor) else t for t in ball))
    stream = Stream(0, torch.tensor([7, 8]), torch.tensor([0, 0]))
    assert torch.equal(uniform_in_ball(part, stream), whole[7:9])


def test_gaussian_start_leaves_the_ball_but_not_the_box():
    ball = make_ball("linf", eps=0.1, low=0.0, high=1.0)
    delta = gaussian(ball, make_stream(), std=0.2) - ball.x
    inside = (delta > -0.25) & (delta < 0.75)
    assert (delta.abs() > 0.1).any()
    assert ((ball.x + delta >= 0) & (ball.x + delta <= 1)).all()
    assert abs(inside.double().mean() - 0.894) < 0.01  # P(N(0, 0.2²) > -0.25)


@pytest.mark.parametrize("start", [uniform_in_ball, zero])
def test_radius_zero_is_x_itself(start):
    ball = make_ball("l2", eps=0.0, dtype=torch.float32)
    assert torch.equal(start(ball, make_stream()), ball.x)

"""The ascent rules: step lengths, and the plateau schedule of every row."""

import pytest
import torch

from vaefast.attacks.ascent import PlateauAscent, ProjectedAscent
from vaefast.attacks.ball import Ball


def make_ball(rows, pixels=4, *, eps=0.1, norm="linf", low=0.0, high=1.0):
    x = torch.full((rows, pixels), 0.5, dtype=torch.float64)
    low, high, eps = (torch.full((rows,), value, dtype=torch.float64) for value in (low, high, eps))
    return Ball(x, eps, norm, low, high)


def advance(ascent, ball, point, grad, objective):
    """One step from ``point``, which is not written to."""
    before = point.clone()
    moved, *state = ascent.move(ball, point, grad, objective, *ascent.state())
    ascent.keep(*state)
    assert torch.equal(point, before)
    return moved


def test_projected_ascent_decays_linearly():
    ball = make_ball(1, eps=1.0, low=-9.0, high=9.0)
    ascent = ProjectedAscent(torch.tensor([0.1]).double(), 4, final=0.2)
    point, lengths = ball.x.clone(), []
    for _ in range(4):
        before = point
        point = advance(ascent, ball, point, torch.ones_like(point), torch.zeros(1))
        lengths.append(float((point - before).max()))
    assert lengths == pytest.approx([0.1, 0.08, 0.06, 0.04])


def test_plateau_schedule_is_that_of_torch_row_by_row():
    """Against torch's scheduler on losses that fall, stall, rise and are negative."""
    steps, rows = 200, 6
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(steps, rows, generator=generator, dtype=torch.float64)
    trend = torch.linspace(-1, 1, rows).double() * torch.arange(steps).double()[:, None]
    objective = noise + 0.05 * trend
    ball = make_ball(rows)
    ascent = PlateauAscent(torch.ones(rows).double(), steps, min_rate=0.0)
    optimizers = [torch.optim.SGD([torch.zeros(1)], lr=1.0) for _ in range(rows)]
    schedules = [
        torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=20, factor=0.5) for o in optimizers
    ]
    for row in objective:
        advance(ascent, ball, ball.x, torch.zeros_like(ball.x), row)
        for schedule, value in zip(schedules, row):
            schedule.step(-value)
        expected = [o.param_groups[0]["lr"] for o in optimizers]
        assert ascent.rate.tolist() == expected
    assert len(set(ascent.rate.tolist())) > 1


def test_a_row_stops_below_the_smallest_rate():
    ball = make_ball(2, eps=1.0)
    ascent = PlateauAscent(torch.tensor([1e-2, 1e-7]).double(), 5)
    point = advance(ascent, ball, ball.x, torch.ones_like(ball.x), torch.zeros(2).double())
    torch.testing.assert_close(point[0], ball.x[0] + 1e-2)
    assert torch.equal(point[1], ball.x[1])


def test_plain_gradient_then_ball_then_box():
    ball = make_ball(1, eps=0.2, low=0.4)
    ascent = PlateauAscent(torch.ones(1).double(), 5)
    grad = torch.tensor([[0.05, 3.0, -3.0, 0.0]]).double()
    point = advance(ascent, ball, ball.x, grad, torch.zeros(1).double())
    torch.testing.assert_close(point, torch.tensor([[0.55, 0.7, 0.4, 0.5]]).double())


def test_published_l2_projection_rescales_by_the_relative_norm():
    """‖ε‖₂ > eps gives ‖ε‖₂ = eps·√D; a shorter ε is left alone."""
    ball = make_ball(2, norm="l2", eps=0.1, low=-9.0, high=9.0)
    ascent = PlateauAscent(torch.ones(2).double(), 5)
    grad = torch.tensor([[0.3, 0.0, 0.4, 0.0], [0.03, 0.0, 0.04, 0.0]]).double()
    point = advance(ascent, ball, ball.x, grad, torch.zeros(2).double())
    expected = torch.tensor([[0.12, 0.0, 0.16, 0.0], [0.03, 0.0, 0.04, 0.0]]).double()
    torch.testing.assert_close(point - ball.x, expected)

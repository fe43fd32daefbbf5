"""Dual averaging: the recursion of the paper, and that it finds its target row by row."""

import math

import torch

from vaefast.hmc.adaptation import DualAveraging


def test_follows_the_published_recursion():
    start, probabilities = 0.3, [1.0, 0.2, 0.65, 0.0, 0.9]
    adaptation = DualAveraging(torch.tensor([start]))
    error, average = 0.0, 0.0
    for t, probability in enumerate(probabilities, start=1):
        adaptation.update(torch.tensor([probability]))
        error = (1 - 1 / (t + 10)) * error + (0.8 - probability) / (t + 10)
        log_step = math.log(10 * torch.tensor([start]).item()) - math.sqrt(t) / 0.05 * error
        average = t**-0.75 * log_step + (1 - t**-0.75) * average
    torch.testing.assert_close(adaptation.step_size.log().item(), log_step)
    torch.testing.assert_close(adaptation.average.log().item(), average)


def test_starts_where_it_is_told():
    step_size = torch.tensor([0.1, 2.0], dtype=torch.float64)
    adaptation = DualAveraging(step_size)
    torch.testing.assert_close(adaptation.step_size, step_size)
    torch.testing.assert_close(adaptation.average, step_size)


def test_every_row_finds_its_own_step_size():
    scale = torch.tensor([0.01, 1.0, 300.0], dtype=torch.float64)
    adaptation = DualAveraging(torch.full((3,), 0.1))
    for _ in range(2000):
        adaptation.update(torch.exp(-adaptation.step_size / scale))
    torch.testing.assert_close(
        adaptation.average / scale, torch.full_like(scale, -math.log(0.8)), rtol=0.05, atol=0
    )


def test_rows_do_not_influence_each_other():
    probabilities = torch.rand(30, 2, generator=torch.Generator().manual_seed(0))
    both, alone = DualAveraging(torch.full((2,), 0.1)), DualAveraging(torch.full((1,), 0.1))
    for probability in probabilities:
        both.update(probability)
        alone.update(probability[:1])
    assert both.average[0] == alone.average[0]

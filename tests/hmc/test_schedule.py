"""The published schedule: shared step sizes, whole groups, chunks that never cut one."""

import pytest
import torch

from vaefast.hmc.schedule import KUZINA2022, GroupStepSize, group_chunks, group_of_rows


def test_step_size_moves_by_the_groups_acceptance():
    group = torch.tensor([0, 0, 1])
    step = GroupStepSize(torch.tensor([0.1, 0.1, 0.2]), group, torch.ones(3, dtype=torch.bool))
    step.update(torch.zeros(3), accepted=torch.tensor([1.0, 0.5, 0.9]))
    factor = 1 + 0.01 * (0.75 - 0.9) / 0.9
    expected = torch.tensor([0.1 * factor, 0.1 * factor, 0.2], dtype=torch.float64)
    torch.testing.assert_close(step.step_size, expected, rtol=1e-6, atol=0)


def test_failed_rows_do_not_count():
    group = torch.tensor([0, 0, 1])
    counted = torch.tensor([True, False, False])
    step = GroupStepSize(torch.full((3,), 0.1), group, counted)
    step.update(torch.zeros(3), accepted=torch.tensor([1.0, 0.0, 0.0]))
    factor = 1 + 0.01 * 0.1 / 0.9
    expected = torch.tensor([0.1 * factor, 0.1 * factor, 0.1], dtype=torch.float64)
    torch.testing.assert_close(step.step_size, expected, rtol=1e-6, atol=0)


def test_groups_of_consecutive_rows():
    index = torch.arange(20, 26)
    assert group_of_rows(2, index, given=True).tolist() == [0, 0, 1, 1, 2, 2]
    assert group_of_rows(None, index, given=True).tolist() == [0, 1, 2, 3, 4, 5]
    assert group_of_rows(torch.tensor([7, 7, 3, 3, 7, 3]), index, given=True).tolist() == [
        1,
        1,
        0,
        0,
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("group", "index"),
    [
        (4, torch.arange(6)),  # 4 does not divide 6
        (2, torch.arange(3, 7)),  # 2 | 3 cut in two
        (2, torch.tensor([0, 1, 2, 5])),
    ],
)
def test_a_cut_through_a_group_is_an_error(group, index):
    with pytest.raises(ValueError, match="cuts a group"):
        group_of_rows(group, index, given=True)


@pytest.mark.parametrize("group", [torch.zeros(3), torch.zeros(2, dtype=torch.int64)])
def test_identifiers_must_be_one_integer_per_row(group):
    with pytest.raises(ValueError, match="int64"):
        group_of_rows(group, torch.arange(3), given=False)


@pytest.mark.parametrize("group", [0, -1, 2.0, True])
def test_group_must_be_a_count(group):
    with pytest.raises((TypeError, ValueError), match="group"):
        group_of_rows(group, torch.arange(4), given=False)


def test_chunks_hold_whole_groups_and_every_row_once(budget):
    group = torch.tensor([1, 0, 2, 1, 0, 3])
    budget(250)  # two rows of 100 bytes: one group
    chunks = list(group_chunks(group, 100))
    assert len(chunks) == 4
    assert sorted(torch.cat(chunks).tolist()) == list(range(6))
    for a, chunk in enumerate(chunks):
        for other in chunks[a + 1 :]:
            assert not set(group[chunk].tolist()) & set(group[other].tolist())


def test_a_group_larger_than_the_budget_is_refused(budget):
    budget(250)
    with pytest.raises(MemoryError, match="a group of 3 rows"):
        list(group_chunks(torch.zeros(3, dtype=torch.int64), 100))


def test_no_rows_no_chunks():
    assert list(group_chunks(torch.zeros(0, dtype=torch.int64), 100)) == []


def test_published_values():
    assert KUZINA2022["mnist"] == {
        "schedule": "kuzina2022",
        "steps": 500,
        "step_size": 0.1,
        "leapfrog": 20,
    }
    assert KUZINA2022["fashion-mnist"]["step_size"] == 0.05

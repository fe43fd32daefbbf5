"""The published schedule: shared step sizes, whole groups, chunks that never cut one."""

import pytest
import torch

from vaefast.hmc import sample
from vaefast.hmc.groups import KUZINA2022, GroupStepSize, group_chunks, group_of_rows
from vaefast.philox import Use, normal, uniform


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


def images(rows, D=6, dtype=torch.float64, seed=0):
    return torch.rand(rows, D, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_published_schedule_against_a_plain_loop(mlp_vae):
    """The defence as its authors wrote it, on the same random numbers."""
    vae, x, T, L, group = mlp_vae(), images(4), 11, 20, 2
    with torch.no_grad():
        vae.decoder[-1].bias[:2] = torch.tensor([13.0, -13.0])  # where the clamp acts
    result = sample(
        vae, x, schedule="kuzina2022", group=group, steps=T, step_size=0.3, chains=3, seed=12
    )
    index, lane = torch.arange(4).repeat_interleave(3), torch.arange(3).repeat(4)
    pixels = x.repeat_interleave(3, 0)

    def energy(z):
        p = torch.sigmoid(vae.decode(z)).clamp(1e-5, 1 - 1e-5)
        log_likelihood = (pixels * p.log() + (1 - pixels) * (1 - p).log()).sum(1)
        return -log_likelihood + 0.5 * z.square().sum(1)

    def gradient(z):
        z = z.detach().requires_grad_()
        return torch.autograd.grad(energy(z).sum(), z)[0]

    def philox(count, use, t, draw):
        return draw(count, seed=12, index=index, step=t, lane=lane, use=use)

    mean, std = (values.detach() for values in vae.posterior(pixels))
    z = mean + std * philox(2, Use.INITIAL, 0, normal)
    eta, accepted = torch.full((2,), 0.3, dtype=torch.float64), torch.zeros(12)
    for t in range(T // 2 + T):
        p = philox(2, Use.MOMENTUM, t, normal)
        step = eta.repeat_interleave(6)[:, None]
        end, q = z, p - step / 2 * gradient(z)
        for leap in range(L):
            end = end + step * q
            q = q - step * gradient(end) * (0.5 if leap == L - 1 else 1.0)
        log_ratio = energy(z) - energy(end) + 0.5 * (p.square() - q.square()).sum(1)
        accept = philox(1, Use.ACCEPT, t, uniform)[:, 0].log() < log_ratio
        z = torch.where(accept[:, None], end, z).detach()
        eta = eta * (1 + 0.01 * (accept.double().view(2, 6).mean(1) - 0.9) / 0.9)
        accepted += accept * (t >= T // 2)
    assert result.z.shape == (4, 3, 1, 2)
    torch.testing.assert_close(result.z.view(12, 2), z, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(result.step_size, eta.repeat_interleave(2), rtol=1e-9, atol=0)
    torch.testing.assert_close(result.accept_rate, (accepted / T).view(4, 3).double())


def test_published_schedule_keeps_a_gaussian_as_it_is(mlp_vae):
    vae, x = mlp_vae("gaussian"), images(2)
    assert sample(vae, x, schedule="kuzina2022", steps=4).failed.sum() == 0


def test_memory_chunks_keep_groups_whole(mlp_vae, budget):
    vae, x = mlp_vae(), images(40)
    group = torch.arange(40) % 8  # groups of 5 that do not stand together
    options = {"schedule": "kuzina2022", "steps": 20, "group": group, "seed": 1}
    whole = sample(vae, x, **options)
    budget(100_000)
    cut = sample(vae, x, **options)
    torch.testing.assert_close(cut.z, whole.z, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(cut.step_size, whole.step_size)

"""What the shared search promises: rows on their own, one batch, memory, and the caller's model."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import vaefast as vf
from vaefast import attacks
from vaefast.models.vae import VAE

OPTIONS = {"eps": 0.2, "steps": 6, "restarts": 3}


def run(attack, vae, x, **options):
    return getattr(attacks, attack)(vae, x, **{**OPTIONS, **options})


ATTACKS = ("latent", "max_damage")


class OperatorCount(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        OperatorCount.count += 1
        return func(*args, **(kwargs or {}))


def operators(call):
    OperatorCount.count = 0
    with OperatorCount():
        call()
    return OperatorCount.count


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_number_of_operators_does_not_grow_with_restarts(attack, make_vae, make_images):
    vae, x = make_vae(torch.float32), make_images(3, torch.float32)
    for _ in range(2):  # records the model, and that it is known
        run(attack, vae, x)
    counts = [operators(lambda n=n: run(attack, vae, x, restarts=n)) for n in (2, 4, 16)]
    assert counts[0] == counts[1] == counts[2]
    one = operators(lambda: run(attack, vae, x, restarts=1))  # no other starts, no copies
    assert one <= counts[0] <= 1.25 * one
    few, many = make_images(2, torch.float32), make_images(40, torch.float32)
    assert operators(lambda: run(attack, vae, few)) == operators(lambda: run(attack, vae, many))


def test_the_target_is_encoded_once(make_vae, make_images):
    vae, x, target = make_vae(opaque=True), make_images(4), make_images(4, seed=7)
    rows = []
    vae.encoder.register_forward_hook(lambda m, inputs, o: rows.append(inputs[0].detach().clone()))
    run("latent", vae, x, target=target, restarts=2)
    matches = [
        sum(torch.equal(row, wanted) for batch in rows if len(batch) > 1 for row in batch)
        for wanted in target
    ]
    assert matches == [1, 1, 1, 1]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_row_alone_gives_what_it_gives_in_the_batch(attack, norm, make_vae, make_images):
    vae, x = make_vae(), make_images(5)
    index = torch.tensor([40, 3, 2**40, 0, 17])
    batch = run(attack, vae, x, norm=norm, index=index, seed=5)
    for row in range(5):
        one = slice(row, row + 1)
        alone = run(attack, vae, x[one], norm=norm, index=index[one], seed=5)
        torch.testing.assert_close(alone.x_adv, batch.x_adv[one])
        torch.testing.assert_close(alone.objective, batch.objective[one])
        torch.testing.assert_close(alone.history, batch.history[:, one])
        assert torch.equal(alone.best_restart, batch.best_restart[one])


@pytest.mark.parametrize("attack", ATTACKS)
def test_seed_and_index_change_the_result(attack, make_vae, make_images):
    vae, x = make_vae(), make_images(3)
    first = run(attack, vae, x)
    assert torch.equal(run(attack, vae, x).x_adv, first.x_adv)
    assert not torch.equal(run(attack, vae, x, seed=1).x_adv, first.x_adv)
    assert not torch.equal(run(attack, vae, x, index=torch.arange(3) + 9).x_adv, first.x_adv)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("keep", ["best", "all"])
def test_a_bad_row_fails_alone(attack, bad, keep, make_vae, make_images):
    vae, x = make_vae(torch.float32), make_images(4, torch.float32)
    clean = run(attack, vae, x, keep=keep)
    x[2, 0, 1, 1] = bad
    result = run(attack, vae, x, keep=keep)
    assert result.failed.tolist() == [False, False, True, False]
    assert result.best_restart[2] == -1
    for values in (result.x_adv, result.objective, result.perturbation_norm):
        assert values[2].isnan().all()
    assert result.history[:, 2].isnan().all()
    others = [0, 1, 3]
    assert torch.equal(result.x_adv[others], clean.x_adv[others])
    assert torch.equal(result.objective[others], clean.objective[others])
    assert torch.equal(result.history[:, others], clean.history[:, others])


def test_a_bad_target_fails_its_row(make_vae, make_images):
    vae, x, target = make_vae(), make_images(3), make_images(3, seed=8)
    target[1, 0, 0, 0] = torch.nan
    result = run("latent", vae, x, target=target)
    assert result.failed.tolist() == [False, True, False]
    h = nn.Linear(3, 2).double()
    result = run("latent", vae, x, target=target, divergence="clf", classifier=h)
    assert result.failed.tolist() == [False, True, False]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_row_fails_even_where_the_model_hides_it(bad, make_images):
    class Hiding(nn.Module):
        def forward(self, x):
            return torch.nan_to_num(x, 0.5, 0.5, 0.5).flatten(1)[:, :2]

    vae = VAE(encoder_mean=Hiding(), encoder_logvar=torch.zeros(2), decoder=nn.Linear(2, 16)).eval()
    x, target = make_images(3, torch.float32), make_images(3, torch.float32, seed=8)
    x[1, 0, 0, 0] = target[2, 0, 3, 3] = bad
    assert run("latent", vae, x).failed.tolist() == [False, True, False]
    assert run("max_damage", vae, x).failed.tolist() == [False, True, False]
    result = run("latent", vae, x, target=target)
    assert result.failed.tolist() == [False, True, True]
    assert result.objective.isnan().tolist() == [False, True, True]


def test_a_model_that_gives_nan_fails_the_row_but_not_the_call(make_images):
    class Fragile(nn.Module):
        def forward(self, x):
            x = x.flatten(1)
            return torch.sqrt(x[:, :2] - 0.5 * (x.mean(1, keepdim=True) < 0.5))

    vae = VAE(encoder_mean=Fragile(), encoder_logvar=torch.zeros(2), decoder=nn.Linear(2, 16))
    x = torch.stack([torch.full((1, 4, 4), 0.2), torch.full((1, 4, 4), 0.8)])
    result = run("latent", vae.eval(), x, eps=0.1)
    assert result.failed.tolist() == [True, False]
    assert result.x_adv[0].isnan().all()


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("keep", ["best", "all"])
def test_chunks_change_nothing_and_bound_the_rows_in_flight(attack, keep, make_vae, make_images):
    vae, x = make_vae(opaque=True), make_images(100)
    options = {"keep": keep, "steps": 2, "restarts": 2}
    if attack == "max_damage":
        options |= {"noise_samples": 2, "fresh_samples": 3}
    whole = run(attack, vae, x, **options)
    widths = []
    vae.decoder.register_forward_hook(lambda m, inputs, o: widths.append(len(inputs[0])))
    vae.encoder.register_forward_hook(lambda m, inputs, o: widths.append(len(inputs[0])))
    for budget, widest in ((50_000, 40), (1, 1)):
        vf.set_memory(budget)
        widths.clear()
        with vf.frozen(vae):  # else three rows show that the modules are functions of theirs
            chunked = run(attack, vae, x, **options)
        assert widths.pop(0) == 2  # that recognise the model
        # the smallest budget: one restart of one input, with its noise samples, at a time
        assert max(widths) <= widest * options.get("noise_samples", 1)
        torch.testing.assert_close(chunked.x_adv, whole.x_adv)
        torch.testing.assert_close(chunked.objective, whole.objective)
        torch.testing.assert_close(chunked.history, whole.history)
        assert torch.equal(chunked.best_restart, whole.best_restart)


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_model_is_only_read(attack, make_vae, make_images):
    vae, x = make_vae(), make_images(3).requires_grad_()
    before = {name: t.clone() for name, t in vae.state_dict().items()}
    modes = [m.training for m in vae.modules()]
    result = run(attack, vae, x)
    assert x.grad is None
    assert all(p.grad is None and p.requires_grad for p in vae.parameters())
    assert [m.training for m in vae.modules()] == modes
    assert all(torch.equal(t, before[name]) for name, t in vae.state_dict().items())
    assert not result.x_adv.requires_grad
    assert not result.objective.requires_grad


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_inputs_are_not_written_to(attack, make_vae, make_images):
    vae, x = make_vae(), make_images(3)
    before = x.clone()
    result = run(attack, vae, x, restarts=1)
    assert torch.equal(x, before)
    assert not torch.equal(result.x_adv, x)


@pytest.mark.parametrize("attack", ATTACKS)
def test_callers_grad_modes(attack, make_vae, make_images):
    vae, x = make_vae(), make_images(3)
    expected = run(attack, vae, x)
    with torch.no_grad():
        assert torch.equal(run(attack, vae, x).x_adv, expected.x_adv)
    with torch.inference_mode():
        frozen = x.clone()
        result = run(attack, vae, frozen, eps=torch.full((3,), 0.2, dtype=torch.float64))
    assert torch.equal(result.x_adv, expected.x_adv)
    assert torch.is_grad_enabled()


def test_a_model_made_in_inference_mode_is_refused(make_vae, make_images):
    with torch.inference_mode():
        vae = make_vae()
    with pytest.raises(ValueError, match=r"made under torch.inference_mode"):
        run("latent", vae, make_images(2))


def test_a_model_that_cuts_the_graph_is_refused(make_images):
    class Cut(nn.Module):
        def forward(self, x):
            return x.detach().flatten(1)[:, :2]

    vae = VAE(encoder_mean=Cut(), encoder_logvar=torch.zeros(2), decoder=nn.Linear(2, 16)).eval()
    with pytest.raises(ValueError, match="does not depend on x through autograd"):
        run("latent", vae, make_images(2, torch.float32))


def test_dropout_in_training_mode_is_refused(make_images):
    encoder = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(16, 2))
    vae = VAE(encoder_mean=encoder, encoder_logvar=torch.zeros(2), decoder=nn.Linear(2, 16))
    for attack in ATTACKS:
        with pytest.raises(RuntimeError, match="training mode"):
            run(attack, vae.train(), make_images(2, torch.float32))


@pytest.mark.parametrize("attack", ATTACKS)
def test_strided_and_expanded_inputs(attack, make_vae, make_images):
    vae, x = make_vae(), make_images(3)
    strided = x.transpose(2, 3).contiguous().transpose(2, 3)
    assert not strided.is_contiguous()
    expected = run(attack, vae, x, restarts=1)
    assert torch.equal(run(attack, vae, strided, restarts=1).x_adv, expected.x_adv)
    one = x[:1].expand(3, -1, -1, -1)
    torch.testing.assert_close(
        run(attack, vae, one).x_adv, run(attack, vae, one.contiguous()).x_adv
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_empty_batch(attack, make_vae, make_images):
    result = run(attack, make_vae(), make_images(0))
    assert result.x_adv.shape == (0, 1, 4, 4)
    assert result.objective.shape == result.failed.shape == result.best_restart.shape == (0,)
    assert result.history.shape == (7, 0)
    everything = run(attack, make_vae(), make_images(0), keep="all")
    assert everything.x_adv.shape == (0, 3, 1, 4, 4)

"""Weights are packed once in a public call, and kept for longer in ``vaefast.frozen`` only."""

import copy
import threading

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import vaefast as vf
from vaefast.elbo import evaluate_elbo
from vaefast.models import packs
from vaefast.ops import _pack

HMC = {"chains": 2, "steps": 60, "warmup": 10, "leapfrog": 2, "keep": "last"}
ATTACK = {"eps": 0.1, "norm": "linf", "steps": 3}
CALLS = {
    "sample": lambda vae, x: vf.hmc.sample(vae, x, **HMC).z,
    "defend": lambda vae, x: vf.hmc.defend(vae, x, **HMC).reconstruction,
    "tune": lambda vae, x: list(vf.hmc.tune(vae, x, warmup=5, steps=5).values()),
    "latent": lambda vae, x: vf.attacks.latent(vae, x, **ATTACK, restarts=2).x_adv,
    "max_damage": lambda vae, x: vf.attacks.max_damage(vae, x, **ATTACK, restarts=2).x_adv,
    "geometric": lambda vae, x: vf.attacks.geometric(vae, x, eps=0.3).x_adv,
    "frobenius_norm": lambda vae, x: vf.geometry.frobenius_norm(vae, x, whiten=True),
    "spectral_norm": lambda vae, x: vf.geometry.spectral_norm(vae, x, bound="lower"),
    "spectrum": lambda vae, x: vf.geometry.pullback_spectrum(vae, x, of="reconstruction").vectors,
    "probability": lambda vae, x: vf.certify.robust_probability(vae, x, 0.3, samples=400).p,
    "margin": lambda vae, x: vf.certify.margin(vae, x, 2.0, samples=50).margin,
}
# encoder, decoder; the margin measures the heads of μ and σ by themselves
NETWORKS = {"latent": 1, "frobenius_norm": 2, "spectral_norm": 1, "probability": 2, "margin": 3}
NETWORKS |= {"spectrum": 2}


@pytest.fixture(autouse=True)
def _cpp(require):
    require("net_forward", "cpp")


@pytest.fixture(autouse=True)
def _none_is_small(monkeypatch):
    monkeypatch.setattr(packs, "SMALL", 0)


@pytest.fixture
def vae():
    return vf.models.MLPVAE((1, 4, 4), hidden=(12, 10), latent=3).eval()


@pytest.fixture
def x():
    return torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(1))


class Seen(TorchDispatchMode):
    """The packs that ops on networks were given."""

    def __init__(self):
        super().__init__()
        self.given = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        names = [a.name for a in func._schema.arguments]
        if func.namespace == "vaefast" and "packed" in names:
            self.given.append(args[names.index("packed")])
        return func(*args, **(kwargs or {}))


@pytest.fixture
def made(monkeypatch):
    """Packs as they are made."""
    made = []
    plain = _pack.PACKERS["cpp"]

    def counting(net, backward):
        result = plain(net, backward)
        if net.packed is None:
            made.append(result)
        return result

    monkeypatch.setitem(_pack.PACKERS, "cpp", counting)
    return made


@pytest.mark.parametrize("name", CALLS)
def test_a_public_call_packs_each_network_once(vae, x, made, name):
    vf.set_memory(1 << 12)  # many chunks
    with Seen() as seen:
        CALLS[name](vae, x)
    assert len(made) == NETWORKS.get(name, 2)
    assert len(seen.given) > len(made)
    pointers = {t.data_ptr() for t in made}
    assert all(t is not None and t.data_ptr() in pointers for t in seen.given)


@pytest.mark.parametrize("name", CALLS)
def test_a_small_network_is_packed_where_that_pays(vae, x, made, monkeypatch, name):
    wanted = CALLS[name](vae, x)
    most, _ = len(made), made.clear()
    monkeypatch.setattr(packs, "SMALL", 1 << 16)
    found = CALLS[name](vae, x)
    assert torch.equal(torch.as_tensor(found), torch.as_tensor(wanted))
    assert len(made) <= most
    if name in ("sample", "defend", "latent"):  # many transitions, many steps
        assert made


def test_one_op_packs_a_small_network_itself(vae, x, made, monkeypatch):
    monkeypatch.setattr(packs, "SMALL", 1 << 16)
    vf.geometry.frobenius_norm(vae, x)
    assert not made
    with vf.frozen(vae):
        vf.geometry.frobenius_norm(vae, x)
    assert len(made) == 1


def test_a_backend_by_name_shares_the_pack(vae, x, made):
    vf.hmc.defend(vae, x, **HMC, backend="cpp")
    assert len(made) == 2


def write_data(tensors):
    for t in tensors:
        t.data.mul_(1.5)


def write_numpy(tensors):
    for t in tensors:
        t.detach().numpy()[...] *= 1.5


def write_fused_adam(tensors):
    for t in tensors:
        t.grad = torch.ones_like(t)
    torch.optim.Adam(tensors, lr=0.3, fused=True).step()
    for t in tensors:
        t.grad = None


def as_list(result):
    """Tensors and numbers of a result, as numpy compares them."""
    if isinstance(result, torch.Tensor):
        return [result.detach().double().numpy()]
    return [np.asarray(r if not isinstance(r, torch.Tensor) else r.double()) for r in result]


def same(a, b):
    return all(np.array_equal(i, j) for i, j in zip(as_list(a), as_list(b)))


@pytest.mark.parametrize("write", [write_data, write_numpy, write_fused_adam])
@pytest.mark.parametrize("name", CALLS)
def test_the_next_public_call_sees_what_was_written(vae, x, name, write):
    before = CALLS[name](vae, x)
    write(list(vae.parameters()))
    after = CALLS[name](vae, x)
    assert same(after, CALLS[name](copy.deepcopy(vae), x))
    assert not same(after, before)
    assert not packs._kept.get()


@pytest.mark.parametrize("name", CALLS)
def test_frozen_keeps_packs_and_bits(vae, x, made, name):
    expected = CALLS[name](vae, x)
    made.clear()
    with vf.frozen(vae):
        for _ in range(3):
            assert same(CALLS[name](vae, x), expected)
        assert len(made) == NETWORKS.get(name, 2)
    assert not packs._kept.get()


@pytest.mark.parametrize("write", [write_data, write_numpy, write_fused_adam])
def test_frozen_finds_changed_weights(vae, x, write):
    def change():
        with vf.frozen(vae):
            CALLS["sample"](vae, x)
            write(list(vae.parameters()))

    message = r"weights changed inside vaefast.frozen: decoder.0.\w+, decoder.\d.\w+, .*, \.\.\.;"
    with pytest.raises(RuntimeError, match=message):
        change()
    assert not packs._kept.get()


def test_frozen_finds_other_changes(vae):
    vae.register_buffer("extra", torch.zeros(3, dtype=torch.float64))
    for change in (
        lambda: vae.extra.add_(1e-300),
        lambda: vae.double(),
        lambda: setattr(vae, "decoder", torch.nn.Linear(3, 16)),
    ):
        with pytest.raises(RuntimeError, match="weights changed inside"), vf.frozen(vae):
            change()
    with vf.frozen(vae):
        vae.extra.add_(0)


def test_an_error_inside_frozen_stays_itself(vae, x):
    def fail():
        with vf.frozen(vae):
            vae.decoder[0].weight.data.add_(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not packs._kept.get()


def test_frozen_blocks_nest_and_concern_one_vae(vae, x, made):
    other = copy.deepcopy(vae)
    with vf.frozen(vae), vf.frozen(vae):
        CALLS["sample"](vae, x)
        CALLS["sample"](copy.deepcopy(vae), x)
        assert len(made) == 4
        CALLS["sample"](other, x)
        CALLS["sample"](vae, x)
        assert len(made) == 6


def test_packs_follow_the_dtype_and_the_backend(vae, x):
    with vf.frozen(vae):
        single = CALLS["sample"](vae, x)
        vae.double()
        assert CALLS["sample"](vae, x.double()).dtype == torch.float64
        vae.float()
        assert same(CALLS["sample"](vae, x), single)
        with vf.use_backend("reference"), Seen() as seen:
            CALLS["sample"](vae, x)
        assert seen.given.count(None) == len(seen.given) > 0


def test_threads_do_not_leave_packs_behind(vae, x):
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with vf.frozen(vae):
            inside.set()
            leave.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait()
    with vf.frozen(vae):
        leave.set()
        holder.join()
        CALLS["sample"](vae, x)
    assert not packs._kept.get()


def test_attacks_after_inference_mode(vae, x):
    with vf.frozen(vae):
        with torch.inference_mode():
            CALLS["frobenius_norm"](vae, x)
            evaluate_elbo(vae, x)
        CALLS["latent"](vae, x)


def test_frozen_takes_a_vae():
    message = "vae must be a vaefast.VAE, got Linear; wrap it with vaefast.as_vae"
    with pytest.raises(TypeError, match=message), vf.frozen(torch.nn.Linear(2, 2)):
        pass


def test_another_thread_packs_for_itself(vae, x):
    """What one thread keeps must not answer another's call after the weights changed."""
    found = []

    def elsewhere():
        with torch.no_grad():
            found.append(vf.geometry.frobenius_norm(vae, x))

    with packs._keeping(vae):
        vf.geometry.frobenius_norm(vae, x)
        for weight in vae.parameters():
            weight.data.mul_(2)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert torch.equal(found[0], vf.geometry.frobenius_norm(vae, x))

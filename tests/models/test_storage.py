"""Models on disk: bit for bit what was saved, and one clear line for any other file."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vaefast.models import MLPVAE, VAE, ConvVAE, as_vae, load, save, storage

MODELS = {
    "mlp": lambda: MLPVAE((1, 4, 5), (8, 6), 3, "leaky_relu:0.2", "gaussian", 0.3, seed=5),
    "fixed": lambda: MLPVAE((6,), (), 2, fixed_std=[0.1, 0.7]),
    "float64": lambda: MLPVAE((6,), (4,), 2, likelihood="continuous_bernoulli").double(),
    "conv": lambda: ConvVAE((3, 8, 8), 4, 5, "clamped_bernoulli"),
}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "m.safetensors"
    save(MODELS["mlp"](), path)
    return path


def rewrite(path, *, tensors=None, **changes):
    """The saved file with other tensors, or with changes to its configuration."""
    with storage.safetensors.safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["vaefast"])
    config.update(changes)
    tensors = load_file(path) if tensors is None else tensors
    save_file(tensors, path, metadata={"vaefast": json.dumps(config)})


@pytest.mark.parametrize("kind", MODELS)
def test_a_saved_model_comes_back_bit_for_bit(kind, tmp_path):
    vae = MODELS[kind]()
    save(vae, tmp_path / "m")
    state = torch.get_rng_state()
    back = load(str(tmp_path / "m"))
    assert torch.equal(torch.get_rng_state(), state)
    assert type(back) is type(vae)
    assert back.config() == vae.config()
    assert not back.training
    x = torch.rand(4, *vae.event_shape, dtype=next(vae.parameters()).dtype)
    assert torch.equal(back.reconstruct(x), vae.reconstruct(x))
    assert torch.equal(back.posterior(x)[1], vae.posterior(x)[1])
    assert all(p.requires_grad for p in back.parameters())
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_saving_replaces_the_file_in_one_step(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*args, **options):
        raise OSError("disk full")

    monkeypatch.setattr(storage, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save(MODELS["mlp"](), saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


class Plain(nn.Module):
    def encode(self, x):
        return x, x

    def decode(self, z):
        return z


class Derived(MLPVAE):
    pass


@pytest.mark.parametrize(
    "vae",
    [
        VAE(encoder_mean=nn.Linear(2, 2), encoder_logvar=nn.Linear(2, 2), decoder=nn.Linear(2, 2)),
        as_vae(Plain()),
        Derived((4,), (), 1),
        nn.Linear(2, 2),
    ],
)
def test_only_models_of_ours_are_saved(vae, tmp_path):
    with pytest.raises(TypeError, match=r"save takes MLPVAE or ConvVAE.*make_vae"):
        save(vae, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_a_model_that_was_changed_is_not_saved_as_another(tmp_path):
    prior, deeper = MODELS["mlp"](), MODELS["mlp"]()
    prior.prior = torch.distributions.Normal(0.0, 1.0)
    deeper.decoder = nn.Linear(3, 20)
    for vae in (prior, deeper):
        with pytest.raises(TypeError, match="save takes the MLPVAE as it was built"):
            save(vae, tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("mlp", lambda vae: vae.decoder.__setitem__(1, nn.ReLU())),
        ("mlp", lambda vae: vae.decoder.__setitem__(1, nn.LeakyReLU(0.3))),
        ("mlp", lambda vae: vae.decoder.append(nn.Identity())),
        ("conv", lambda vae: setattr(vae.decoder[1], "padding", (1, 1))),
        ("conv", lambda vae: setattr(vae, "decoder_output", "probabilities")),
        ("conv", lambda vae: setattr(vae, "likelihood", "gaussian")),
    ],
)
def test_a_change_without_other_weights_is_seen(kind, change, tmp_path):
    vae = MODELS[kind]()
    change(vae)
    with pytest.raises(TypeError, match="as it was built"):
        save(vae, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_places_that_hold_no_model(tmp_path, saved):
    with pytest.raises(FileNotFoundError, match="no model at"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        save(MODELS["mlp"](), tmp_path / "none" / "m")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        save(MODELS["mlp"](), tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\xff" * 100, None])
def test_corrupted_files_are_one_line(saved, content):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match="is not a readable safetensors file") as caught:
        load(saved)
    assert "\n" not in str(caught.value)


def test_a_foreign_file_is_not_a_damaged_one(saved):
    for metadata in (None, {"format": "pt"}):
        save_file({"weight": torch.zeros(2)}, saved, metadata=metadata)
        with pytest.raises(ValueError, match=r"vaefast did not write.*as_vae"):
            load(saved)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "has format 2, this vaefast reads up to 1; upgrade vaefast"),
        ({"format": "new"}, "has format 'new'"),
        ({"format": True}, "has format True"),
        ({"format": 0}, r"damaged configuration \(format 0\)"),
        ({"format": -1}, r"damaged configuration \(format -1\)"),
        ({"class": "NormalVAE"}, "holds a 'NormalVAE', known are MLPVAE, ConvVAE"),
        ({"class": ["MLPVAE"]}, "known are"),
        ({"arguments": [1]}, "known are"),
        ({"arguments": {}}, "damaged configuration"),
        ({"arguments": {"event_shape": [20], "width": 3}}, "damaged configuration"),
        ({"arguments": {"event_shape": "abc"}}, "damaged configuration"),
        ({"arguments": {"event_shape": [20], "activation": 3}}, "damaged configuration"),
        ({"arguments": {"event_shape": [10**9], "hidden": [10**9] * 2}}, "must be floating"),
        ({"arguments": {"event_shape": [10**30]}}, "damaged configuration"),
    ],
)
def test_configurations_that_cannot_be_built(saved, changes, words):
    rewrite(saved, **changes)
    with pytest.raises(ValueError, match=words) as caught:
        load(saved)
    assert "\n" not in str(caught.value)


def test_a_configuration_that_is_no_json(saved):
    for text in ("{", "3", "null", "{}", "[" * 100_000):
        save_file(load_file(saved), saved, metadata={"vaefast": text})
        with pytest.raises(ValueError, match="damaged configuration"):
            load(saved)


def test_tensors_that_do_not_fit(saved):
    tensors = load_file(saved)
    name, tensor = next(iter(sorted(tensors.items())))
    fewer = {key: value for key, value in tensors.items() if key != name}
    for changed, words in (
        (fewer, f"lacks 1 tensors of its model, first '{name}'"),
        ({**tensors, "more": tensor.clone()}, "1 tensors too many, first 'more'"),
        ({**tensors, name: tensor[:1].clone()}, f"tensor '{name}' must be floating"),
        ({**tensors, name: tensor.int()}, "int32"),
    ):
        rewrite(saved, tensors=changed)
        with pytest.raises(ValueError, match=words):
            load(saved)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda key, weight: weight.half() if "decoder" in key else weight, "one dtype"),
        (lambda key, weight: weight.to(torch.float8_e4m3fn), "float8"),
        (lambda key, weight: weight * torch.nan, "finite weights"),
        (lambda key, weight: weight + torch.inf, "finite weights"),
    ],
)
def test_weights_that_no_model_has(saved, spoil, words):
    tensors = {key: spoil(key, weight) for key, weight in load_file(saved).items()}
    rewrite(saved, tensors=tensors)
    with pytest.raises(ValueError, match=words) as caught:
        load(saved)
    assert "\n" not in str(caught.value)


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    diverged, mixed = MODELS["mlp"](), MODELS["mlp"]()
    diverged.decoder[0].weight.data[0, 0] = torch.nan
    mixed.decoder.double()
    for vae, words in ((diverged, "'decoder.0.weight' holds NaN"), (mixed, "one dtype")):
        with pytest.raises(ValueError, match=words):
            save(vae, tmp_path / "m")
    assert not list(tmp_path.iterdir())

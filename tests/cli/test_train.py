"""``vaefast train``: what is minimised, when it stops, and models with groups of latents."""

import math

import pytest
import torch

from vaefast import data, models, training

TRAIN = ["train", "--data", "digits", "--epochs", 1, "--threads", 1, "--latent", 3]


def weights(path):
    return models.load(path).state_dict()


@pytest.mark.parametrize(
    ("words", "objective"),
    [
        (["mixup", "--beta", 2, "--objective-options", "weight=0.5"], training.Mixup(2.0, 0.5)),
        (["fisher", "--objective-options", "probes=2"], training.Fisher(probes=2)),
        (["smooth", "--objective-options", "steps=1,eps=8/255,norm=l2"],
         training.Smooth(steps=1, eps=8 / 255, norm="l2")),
    ],
    ids=["mixup", "fisher", "smooth"],
)  # fmt: skip
def test_an_objective_with_its_options_is_that_of_fit(run, words, objective):
    code, output, _ = run(*TRAIN, "--objective", *words, "--out", "m.safetensors")
    assert code == 0
    assert f"objective {words[0]} (" in output
    vae, x = models.MLPVAE((1, 8, 8), (256, 256), 3), data.load("digits").x_train
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        training.fit(vae, x, objective=objective, epochs=1, progress=False)
    finally:
        torch.set_num_threads(threads)
    own = weights("m.safetensors")
    assert all(torch.equal(own[name], t) for name, t in vae.state_dict().items())


def test_a_hierarchical_model_is_trained_saved_and_loaded(run):
    words = ["--architecture", "hierarchical", "--groups", 2, "--objective", "seatbelt"]
    code, output, _ = run(*TRAIN, *words, "--beta", 4, "--out", "h.safetensors")
    assert code == 0
    assert "objective seatbelt, beta 4" in output
    vae = models.load("h.safetensors")
    assert isinstance(vae, models.HierarchicalVAE)
    assert vae.shapes[0] == (3,)
    assert len(vae.shapes) == 2
    fresh = models.HierarchicalVAE((1, 8, 8), 2, latent=3)
    assert not torch.equal(vae.out.weight, fresh.out.weight)
    again = [*TRAIN, *words[:4], "--out", "again.safetensors"]
    assert run(*again)[0] == 0
    assert not torch.equal(models.load("again.safetensors").out.weight, vae.out.weight)


def test_it_stops_early_and_says_so(run):
    words = ["--epochs", 40, "--patience", 1, "--beta", 30, "--latent", 2]
    code, output, _ = run(*TRAIN, *words, "--out", "m.safetensors")
    assert code == 0
    assert "stopped after" in output
    assert "of 40 epochs (weights of epoch" in output
    loss = float(output.split(": ")[-1].split(" nats")[0])
    assert math.isfinite(loss)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--objective", "vae"], "--objective must be one of 'elbo', 'beta'"),
        (["--objective", "mixup", "--objective-options", "eps=1"],
         'objective "mixup" has no option \'eps\'; it has weight, pairing beside beta'),
        (["--objective-options", "beta=1"], 'objective "beta" has no option \'beta\'; it has none'),
        (["--objective", "smooth", "--objective-options", "eps"], "NAME=VALUE,... with each name"),
        (["--objective", "smooth", "--objective-options", "eps=1,eps=2"], "with each name once"),
        (["--objective", "smooth", "--objective-options", "steps=1.5"], "steps must be a whole"),
        (["--objective", "smooth", "--objective-options", "eps=big"], "eps must be a number"),
        (["--objective", "seatbelt"], "needs a hierarchical VAE, got one posterior"),
        (["--architecture", "hierarchical", "--objective", "avae"], "needs one Gaussian posterior"),
        (["--groups", 3], "--groups is for --architecture hierarchical, got architecture 'mlp'"),
        (["--architecture", "hierarchical", "--groups", 7], "--groups"),
        (["--architecture", "nvae"], "must be one of 'mlp', 'conv', 'hierarchical'"),
        (["--patience", 0], "--patience"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(refused, words, line):
    assert line in refused(*TRAIN, *words, "--out", "m.safetensors")


def test_commands_that_need_one_posterior_say_so(run, refused):
    words = ["--architecture", "hierarchical", "--groups", 2]
    assert run(*TRAIN, *words, "--out", "h.safetensors")[0] == 0
    attack = ["attack", "--data", "digits", "--model", "h.safetensors", "--out", "a.npz"]
    assert "groups of latents" in refused(*attack)
    assert "--architecture" in refused(
        "audit", "--data", "digits", "--architecture", "hierarchical", "--out", "report"
    )

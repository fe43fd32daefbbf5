"""What each objective that protects is for, on 8×8 digits against a plain VAE trained alike."""

import pytest

import vaefast as vf
from vaefast import data
from vaefast.models import MLPVAE, HierarchicalVAE
from vaefast.training import (
    AVAE,
    Adversarial,
    BetaELBO,
    Fisher,
    Mixup,
    Seatbelt,
    Smooth,
    evaluate_elbo,
    fit,
)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def trained(digits):
    """An MLP of each objective, trained alike on 8×8 digits, made when it is asked for."""
    found = {}

    def of(objective):
        if objective not in found:
            vae = MLPVAE((1, 8, 8), (64,), 4)
            options = {"epochs": 8, "lr": 3e-3, "progress": False}
            fit(vae, digits.x_train, objective=objective, **options)
            found[objective] = vae.eval()
        return found[objective]

    return of


def damage(vae, x):
    return vf.attacks.max_damage(vae, x, eps=0.1, norm="linf", steps=10).objective.mean()


def eigenvalue(vae, x, **options):
    return vf.geometry.pullback_spectrum(vae, x, **options).eigenvalues[:, 0].mean()


def test_mixup_lowers_the_top_eigenvalue(trained, digits):
    values = [eigenvalue(trained(o), digits.x_test[:48], std=True) for o in (BetaELBO(), Mixup())]
    assert values[1] < 0.95 * values[0]


def moved(vae, x):
    found = vf.attacks.latent(vae, x, eps=0.1, divergence="w2", steps=10)
    return found.objective.mean()


MEASURES = {
    Mixup(): (moved, 0.9),
    Smooth(): (moved, 0.4),
    AVAE(): (damage, 0.6),
    Fisher(): (lambda v, x: eigenvalue(v, x, whiten=True), 0.6),
    Adversarial(steps=3): (damage, 0.85),
}


@pytest.mark.parametrize("objective", MEASURES, ids=repr)
def test_it_protects_at_the_cost_of_a_few_nats(objective, trained, digits):
    measure, share = MEASURES[objective]
    plain, own, x = trained(BetaELBO()), trained(objective), digits.x_test[:48]
    assert measure(own, x) < share * measure(plain, x)
    rec = [evaluate_elbo(vae, x, samples=4).reconstruction.mean() for vae in (plain, own)]
    assert rec[1] > rec[0] - 4.0


def test_seatbelt_lowers_the_total_correlation_of_the_top_group(digits):
    """Free bits make the model use the group, which takes longer otherwise."""
    found = []
    for beta in (1.0, 12.0):
        vae = HierarchicalVAE((1, 8, 8), 2, channels=8, latent=4, free_bits=4.0)
        options = {"epochs": 6, "lr": 4e-3, "batch_size": 16, "progress": False}
        history = fit(vae, digits.x_train[:600], objective=Seatbelt(beta, "stratified"), **options)
        found.append(history.terms["total_correlation"][-1])
    assert found[0] > 0.1
    assert found[1] < 0.5 * found[0]

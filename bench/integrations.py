"""Whole attacks and chains of other libraries beside the same with ours inside, taking turns.

Both are the public calls, from the same random start: all that differs is what runs inside. What
is not installed is left out; ``pip install 'vaefast[integrations]'``.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vaefast.bench.integrations_chains import chain_cases
from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Case

__all__ = ["cases"]

STEPS = 10
CLASSES = 10
RADII = {"linf": 8 / 255, "l2": 1.0}


def cases(place: Place) -> list[Case]:
    """Two classifiers under each attack, then chains; on a CPU."""
    found: list[Case] = []
    for name, build in ATTACKS.items():
        library = name.partition(".")[0]
        if importlib.util.find_spec(library) is not None:
            found += [
                (f"{name} {model}", partial(case, place, name, build, model)) for model in MODELS
            ]
    return found + chain_cases(place)


def case(place: Place, name: str, build: Callable[..., Any], model: str) -> Benchmark:
    net, x, labels = MODELS[model](place)
    library = name.partition(".")[0]
    ours = importlib.import_module(f"vaefast.integrations.{library}")
    theirs = importlib.import_module({"foolbox": "foolbox.attacks", "art": "art.attacks.evasion"}
                                     .get(library, library))  # fmt: skip
    return Benchmark(
        op="integrations",
        case=f"{name} {model} B={len(x)} steps={STEPS} float32 cpu",
        providers={"vaefast": build(ours, net, x, labels), library: build(theirs, net, x, labels)},
        bytes=1,
        flop=0,
        tolerance=1e-5,
        outliers=0.01,
        at_least=0.9,
    )


def perceptron(place: Place) -> tuple[nn.Module, Tensor, Tensor]:
    """784-512-512-10 on 64 images."""
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, CLASSES),
    )
    return _attacked(place, net, 64, 1, 28, 28)


def convolutional(place: Place) -> tuple[nn.Module, Tensor, Tensor]:
    """Four convolutions with batch norm, 32x32x3 to 10 classes, on 8 images."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 32, 1), (32, 64, 2), (64, 128, 2), (128, 128, 1)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, CLASSES))
    return _attacked(place, net, 8, 3, 32, 32)


MODELS = {"784-512-512-10": perceptron, "4 convolutions": convolutional}


@torch.no_grad()
def _attacked(
    place: Place, net: nn.Module, rows: int, *event: int
) -> tuple[nn.Module, Tensor, Tensor]:
    """With images and the classes that the net gives them, so that every row has to be fooled."""
    x = place.pixels(min(rows, 2) if place.tiny else rows, *event)
    return net.eval(), x, net(x).argmax(1)


def _torchattacks(kind: str, **options: Any) -> Callable[..., Any]:
    def build(module: Any, net: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], Tensor]:
        attack = getattr(module, kind)(net, steps=STEPS, **options)

        def run() -> Tensor:
            torch.manual_seed(0)
            return attack(x, labels)

        return run

    return build


def _foolbox(kind: str, norm: str) -> Callable[..., Any]:
    def build(module: Any, net: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], Tensor]:
        foolbox = importlib.import_module("foolbox")
        model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        attack = getattr(module, kind)(steps=STEPS)

        def run() -> Tensor:
            torch.manual_seed(0)
            return attack.run(model, x, labels, epsilon=RADII[norm])

        return run

    return build


def _art(norm: str) -> Callable[..., Any]:
    def build(module: Any, net: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], Tensor]:
        art = importlib.import_module("art.estimators.classification")
        estimator = art.PyTorchClassifier(
            model=net,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=CLASSES,
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
        attack = module.ProjectedGradientDescent(
            estimator,
            norm=np.inf if norm == "linf" else 2,
            eps=RADII[norm],
            eps_step=RADII[norm] / 4,
            max_iter=STEPS,
            num_random_init=1,
            batch_size=len(x),
            verbose=False,
        )
        images, classes = x.numpy(), labels.numpy()

        def run() -> Tensor:
            np.random.seed(0)  # noqa: NPY002 - the library's generator
            return torch.from_numpy(attack.generate(images, classes))

        return run

    return build


ATTACKS = {
    "torchattacks.PGD": _torchattacks("PGD"),
    "torchattacks.PGDL2": _torchattacks("PGDL2"),
    "torchattacks.APGD": _torchattacks("APGD", eps=8 / 255),
    "foolbox.LinfPGD": _foolbox("LinfPGD", "linf"),
    "foolbox.L2PGD": _foolbox("L2PGD", "l2"),
    "art.PGD linf": _art("linf"),
    "art.PGD l2": _art("l2"),
}

"""PGD of other libraries beside ours: the same network, images, radius, steps and start."""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.pytorch_passes import has_torch, torch_net
from benchmarks.pytorch_step import with_spread_logits
from jaxrobust import models, threats
from jaxrobust.attacks import pgd
from jaxrobust.bench import least_times, setting
from jaxrobust.convolutions import compiler_options
from jaxrobust.reasons import first_line

EPS = 8 / 255  # leaves some images of a random network robust
DISTRIBUTIONS = {
    "foolbox": "foolbox",
    "torchattacks": "torchattacks",
    "art": "adversarial-robustness-toolbox",
    "advertorch": "advertorch",
}


class PeerRow(NamedTuple):
    """One library's PGD: cross-entropy, l_inf, from the clean images.

    Attributes:
      library: its name, and the framework that its network runs in.
      version: of the library; empty where it is not installed.
      seconds: of one attack on the batch, the least of the repeats, all in turn; without
        compilation; `nan` where it failed.
      ratio: these seconds over ours.
      robust: images still classified correctly, by our network's word for all libraries.
      image_difference: mean difference of the adversarial images from ours, over eps.
      problem: why there are no figures, such as "not installed"; else empty.
    """

    library: str
    version: str
    seconds: float
    ratio: float
    robust: int
    image_difference: float
    problem: str = ""


class _Problem(NamedTuple):
    """What the peers are given."""

    logits_fn: Any  # ours
    net: Any  # the same in PyTorch, or None
    images: np.ndarray  # [b, h, w, c]
    labels: np.ndarray
    steps: int
    step_size: float


def peer_table(
    *, width: int = 16, batch_size: int = 32, steps: int = 10, repeats: int = 3
) -> list[PeerRow]:
    """PGD on a PreActResNet-18 at 32 x 32, by this library and by those that are installed.

    Labels are the network's own predictions, so that clean accuracy is 1.

    Args:
      width: channels of the first stage.
      batch_size: images.
      steps: of the attack.
      repeats: of each measurement.

    Returns:
      A row per library and framework; a missing or failing one says so.

    Raises:
      AssertionError: if a library leaves the ball, or leaves another number of images robust by
        more than two in a hundred, at least one.
    """
    problem = _problem(width, batch_size, steps)
    calls: dict[str, Callable[[], Any]] = {"jaxrobust": _ours(problem)}
    problems: dict[str, str] = {}
    made: dict[str, np.ndarray] = {"jaxrobust": np.asarray(calls["jaxrobust"]())}
    for name, (module, framework, make) in PEERS.items():
        missing = [m for m in (module, framework) if importlib.util.find_spec(m) is None]
        if missing:
            problems[name] = f"{' and '.join(dict.fromkeys(missing))} not installed"
            continue
        try:
            call = make(problem)
            made[name] = np.asarray(call())
            calls[name] = call
        except Exception as error:  # whatever another library does with this network
            problems[name] = first_line(error)
    seconds = least_times(calls, repeats)
    rows = [_row(name, problem, made, seconds) for name in calls]
    nan = float("nan")
    return rows + [
        PeerRow(name, _version(PEERS[name][0]), nan, nan, -1, nan, text)
        for name, text in problems.items()
    ]


def _row(
    name: str, problem: _Problem, made: dict[str, np.ndarray], seconds: dict[str, float]
) -> PeerRow:
    ours, images = made["jaxrobust"], made[name]
    assert np.abs(images - problem.images).max() < EPS + 1e-5, f"{name} leaves the ball"
    robust, expected = (_robust(problem, each) for each in (images, ours))
    allowed = max(1, round(0.02 * len(ours)))
    assert abs(robust - expected) <= allowed, f"{name}: {robust} images robust, ours {expected}"
    difference = float(np.abs(images - ours).mean() / EPS)
    version = _version(PEERS[name][0]) if name in PEERS else _version("jaxrobust")
    ratio = seconds[name] / seconds["jaxrobust"]
    return PeerRow(name, version, seconds[name], ratio, robust, difference)


def _problem(width: int, batch_size: int, steps: int) -> _Problem:
    bench = with_spread_logits(setting("preact_resnet18", width=width, batch_size=batch_size))
    logits_fn = models.logits_fn(bench.model, bench.variables)
    images = np.asarray(bench.images, np.float32) / np.float32(255)
    labels = np.asarray(jax.jit(lambda f, x: f(x).argmax(-1))(logits_fn, images), np.int32)
    net = torch_net(bench.variables, width).eval() if has_torch() else None
    return _Problem(logits_fn, net, images, labels, steps, 2.5 * EPS / steps)


def _robust(problem: _Problem, images: np.ndarray) -> int:
    predicted = jax.jit(lambda f, x: f(x).argmax(-1))(problem.logits_fn, images)
    return int((np.asarray(predicted) == problem.labels).sum())


def _ours(problem: _Problem) -> Callable[[], Any]:
    def attack(logits_fn: Any, key: Any, images: Any, labels: Any) -> Any:
        return pgd(
            logits_fn,
            key,
            images,
            labels,
            threat=threats.linf(EPS),
            steps=problem.steps,
            step_size=problem.step_size,
            start=jnp.zeros_like(images),
        ).images

    arguments = (problem.logits_fn, jax.random.key(0), problem.images, problem.labels)
    return partial(jax.jit(attack).lower(*arguments).compile(compiler_options()), *arguments)


def _torch_batch(problem: _Problem) -> tuple[Any, Any]:
    import torch

    x = torch.from_numpy(np.ascontiguousarray(problem.images.transpose(0, 3, 1, 2)))
    labels = torch.from_numpy(problem.labels.astype(np.int64))
    return x.contiguous(memory_format=torch.channels_last), labels


def _channels_last(images: Any) -> np.ndarray:
    return np.asarray(images.detach()).transpose(0, 2, 3, 1)


def _foolbox_attack(problem: _Problem) -> Any:
    import foolbox

    return foolbox.attacks.LinfProjectedGradientDescentAttack(
        abs_stepsize=problem.step_size, steps=problem.steps, random_start=False
    )


def _foolbox_torch(problem: _Problem) -> Callable[[], Any]:
    import foolbox

    model = foolbox.PyTorchModel(problem.net, bounds=(0, 1), device="cpu")
    attack, batch = _foolbox_attack(problem), _torch_batch(problem)
    return lambda: _channels_last(attack(model, *batch, epsilons=EPS)[1])


def _foolbox_jax(problem: _Problem) -> Callable[[], Any]:
    import foolbox

    compiled = jax.jit(lambda x: problem.logits_fn(x))
    model = foolbox.JAXModel(compiled, bounds=(0, 1), data_format="channels_last")
    attack = _foolbox_attack(problem)
    batch = (jnp.asarray(problem.images), jnp.asarray(problem.labels))
    return lambda: attack(model, *batch, epsilons=EPS)[1]


def _torchattacks(problem: _Problem) -> Callable[[], Any]:
    import torchattacks

    attack = torchattacks.PGD(
        problem.net, eps=EPS, alpha=problem.step_size, steps=problem.steps, random_start=False
    )
    batch = _torch_batch(problem)
    return lambda: _channels_last(attack(*batch))


def _art(problem: _Problem) -> Callable[[], Any]:
    import torch
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    model = PyTorchClassifier(
        problem.net,
        loss=torch.nn.CrossEntropyLoss(reduction="sum"),
        input_shape=(3, *problem.images.shape[1:3]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = ProjectedGradientDescent(
        model,
        norm=np.inf,
        eps=EPS,
        eps_step=problem.step_size,
        max_iter=problem.steps,
        num_random_init=0,
        batch_size=len(problem.labels),
        verbose=False,
    )
    x = np.ascontiguousarray(problem.images.transpose(0, 3, 1, 2))
    return lambda: attack.generate(x, problem.labels).transpose(0, 2, 3, 1)


def _advertorch(problem: _Problem) -> Callable[[], Any]:
    import torch
    from advertorch.attacks import LinfPGDAttack

    attack = LinfPGDAttack(
        problem.net,
        loss_fn=torch.nn.CrossEntropyLoss(reduction="sum"),
        eps=EPS,
        nb_iter=problem.steps,
        eps_iter=problem.step_size,
        rand_init=False,
    )
    batch = _torch_batch(problem)
    return lambda: _channels_last(attack.perturb(*batch))


PEERS: dict[str, tuple[str, str, Callable[[_Problem], Callable[[], Any]]]] = {
    "foolbox, PyTorch": ("foolbox", "torch", _foolbox_torch),
    "foolbox, JAX": ("foolbox", "jax", _foolbox_jax),
    "torchattacks, PyTorch": ("torchattacks", "torch", _torchattacks),
    "ART, PyTorch": ("art", "torch", _art),
    "AdverTorch, PyTorch": ("advertorch", "torch", _advertorch),
}


def _version(module: str) -> str:
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(module, module))
    except importlib.metadata.PackageNotFoundError:
        return ""

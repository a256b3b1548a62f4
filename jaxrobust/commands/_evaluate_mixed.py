"""Evaluating two networks, mixed: a row of figures."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxrobust import mixing, models, threats
from jaxrobust.commands._autoattack import AttackBar
from jaxrobust.commands._evaluate import EvaluationBar
from jaxrobust.evaluation import append_row, autoattack, evaluate, pgd_attacks, provenance
from jaxrobust.experiment import PARTS
from jaxrobust.experiment._files import parsed
from jaxrobust.spec import Spec, checked, number
from jaxrobust.training import load_base

Source = str | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Two networks and how they are mixed: exactly one of `alpha`, `smoothing` and `nuts`.

    Attributes:
      std: the accurate base: a run's folder, or a mapping, see `training.load_base`.
      rob: the robust base.
      alpha: weight of the robust base.
      std_scale: factor on the accurate base's logits, with `alpha`.
      rob_scale: factor on the robust base's logits, with `alpha`.
      smoothing: a published setting of Adaptive Smoothing, for which `network` is needed.
      network: file of weights of the mixing network.
      nuts: a published setting of MixedNUTS.
    """

    std: Source
    rob: Source
    alpha: float | None = None
    std_scale: float = 1.0
    rob_scale: float = 1.0
    smoothing: str | None = None
    network: str | None = None
    nuts: str | None = None

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.alpha, self.smoothing, self.nuts)) != 1:
            raise ValueError("give exactly one of alpha, smoothing and nuts")
        if (self.smoothing is None) != (self.network is None):
            raise ValueError("smoothing needs the file of a mixing network, and nothing else does")
        for name, presets in (
            ("smoothing", mixing.ADAPTIVE_SMOOTHING),
            ("nuts", mixing.MIXED_NUTS),
        ):
            value = getattr(self, name)
            if value is not None and value not in presets:
                raise ValueError(f"{name} must be one of {', '.join(presets)}, got {value!r}")

    def build(self, num_classes: int, images: np.ndarray) -> Any:
        """The mixed classifier; `images` are of the data that it is for."""
        std, rob = (load_base(x, num_classes=num_classes) for x in (self.std, self.rob))
        if self.alpha is not None:
            scales: dict[str, Any] = {"std_scale": self.std_scale, "rob_scale": self.rob_scale}
            return mixing.mixed(std, rob, alpha=self.alpha, **scales)
        options: dict[str, Any]
        if self.nuts is not None:
            options = {**mixing.MIXED_NUTS[self.nuts].options}
            return mixing.mixed_nuts(std, rob, **options)
        preset = mixing.ADAPTIVE_SMOOTHING[self.smoothing or ""]
        shapes = [jax.eval_shape(base.with_features, images[:1])[1] for base in (std, rob)]
        channels = [[maps[f"stage{n}"].shape[-1] for n in (1, 2)] for maps in shapes]
        network = models.mixing_network(std_channels=channels[0], rob_channels=channels[1])
        variables = models.load_torch_checkpoint(self.network or "", network)
        gamma = models.gamma_fn(
            network, variables, scale=preset.gamma_scale, bias=preset.gamma_bias
        )
        options = {**preset.options}
        return mixing.mixed(std, rob, gamma=gamma, **options)


@dataclass(frozen=True, kw_only=True)
class MixedEvaluation:
    """The attack on a mixed classifier.

    Attributes:
      attack: "pgd" on cross-entropy and margin, "autoattack", or "adaptive": AutoAttack through
        MixedNUTS' surrogate, or its APGD attacks on a loss that also evades the mixing network.
      norm: "linf", "l2" or "l1".
      eps: radius in image units.
      steps: of PGD.
      n: the first n test images; default all.
      weight: of the mixing network's output in the adaptive loss.
      version: of AutoAttack.
      attacks: of AutoAttack, version "custom".
      seed: of all noise.
      batch_size: examples per forward pass.
    """

    attack: str = "pgd"
    norm: str = "linf"
    eps: float = 8 / 255
    steps: int = 20
    n: int | None = None
    weight: float = 0.2
    version: str = "standard"
    attacks: Sequence[str] | None = None
    seed: int = 0
    batch_size: int = 128


def evaluate_mixed(
    mixture: Mixture,
    data: Spec,
    folder: pathlib.Path,
    *,
    evaluation: MixedEvaluation,
    quiet: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Clean and attacked accuracy of two networks, mixed, on the test set of some data.

    Appends a row to `results.jsonl` in the folder; AutoAttack leaves its report there too.

    Args:
      mixture: the bases and how they are mixed.
      data: a data set of `jaxrobust.data`.
      folder: made if missing.
      evaluation: the attack.
      quiet: no progress bar.
      say: where lines for the user go.

    Returns:
      The row.
    """
    spec = checked(data, PARTS["data"], "data")
    dataset = PARTS["data"][spec.name](**spec.kwargs)
    images, labels = (x[: evaluation.n] for x in dataset.floats("test"))
    both = mixture.build(dataset.num_classes, images)
    folder.mkdir(parents=True, exist_ok=True)
    attack = _pgd if evaluation.attack == "pgd" else _autoattack
    target = both if evaluation.attack != "adaptive" else _adaptive(both, evaluation)
    figures = attack(target, images, labels, folder, evaluation, quiet=quiet, say=say)
    row = {
        "mixture": _plain(vars(mixture)),
        "data": {"name": spec.name, **spec.kwargs},
        "evaluation": _plain(vars(evaluation)),
        **figures,
        "provenance": provenance(),
    }
    append_row(folder / "results.jsonl", row)
    return row


def _adaptive(both: Any, evaluation: MixedEvaluation) -> Any:
    if isinstance(both, mixing.MixedNUTS):
        return mixing.guided(both, guide=both.surrogate)
    return mixing.evading(both, weight=evaluation.weight)


def _pgd(
    target: Any,
    images: np.ndarray,
    labels: np.ndarray,
    folder: pathlib.Path,
    evaluation: MixedEvaluation,
    *,
    quiet: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    threat = getattr(threats, evaluation.norm)(np.float32(evaluation.eps))
    with EvaluationBar("mixed", len(labels), quiet=quiet) as bar:
        result = evaluate(
            target,
            images,
            labels,
            attacks=pgd_attacks(threat, steps=evaluation.steps),
            batch_size=evaluation.batch_size,
            seed=evaluation.seed,
            advance=bar.advance,
        )
    say(f"clean accuracy   {result.clean}")
    for name, accuracy in (result.robust | {"worst case": result.worst}).items():
        say(f"{name:<16} {accuracy}")
    return result.figures()


def _autoattack(
    target: Any,
    images: np.ndarray,
    labels: np.ndarray,
    folder: pathlib.Path,
    evaluation: MixedEvaluation,
    *,
    quiet: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    version, attacks = evaluation.version, evaluation.attacks
    if isinstance(target, mixing.Evading) and attacks is None:
        version, attacks = "custom", ("apgd-ce", "apgd-t")  # what has a loss to put the term in
    with AttackBar(quiet=quiet) as bar:
        report = autoattack(
            target,
            images,
            labels,
            norm=evaluation.norm,  # type: ignore[arg-type]
            eps=evaluation.eps,
            version=version,
            attacks=attacks,
            seed=evaluation.seed,
            batch_size=evaluation.batch_size,
            progress=bar.show,
        )
    report.save(folder / evaluation.attack)
    say(report.text())
    return {
        "autoattack": report.protocol,
        "clean_accuracy": report.clean_accuracy._asdict(),
        "robust_accuracy": {evaluation.attack: report.robust_accuracy._asdict()},
        "checks": [check._asdict() for check in report.checks if not check.passed],
        "seconds": round(report.seconds, 2),
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def assigned(assignments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`std.width=1` and the like as keyword arguments by part."""
    parts: dict[str, dict[str, Any]] = {"std": {}, "rob": {}, "data": {}}
    for text in assignments:
        path, sign, value = text.partition("=")
        part, _, name = path.strip().partition(".")
        if not sign or part not in parts or not name:
            raise ValueError(
                f"--set {text!r}: write std.NAME=value, rob.NAME=value or data.NAME=value"
            )
        parts[part][name] = number(parsed(value))
    return parts

"""Evaluating two networks, mixed: a row of figures."""

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxrobust import mixing, models, threats
from jaxrobust.commands._autoattack import keep_report
from jaxrobust.commands._evaluate import warning_lines
from jaxrobust.commands._identity import short
from jaxrobust.commands._keeper import Keeper
from jaxrobust.commands._progress import AttackBar, EvaluationBar
from jaxrobust.evaluation import Report, append_row, autoattack, evaluate, pgd_attacks, provenance
from jaxrobust.experiment import PARTS, parsed
from jaxrobust.spec import Spec, built, checked, number
from jaxrobust.storage import in_bucket, local_folder, run_folder
from jaxrobust.training import load_base, load_run

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

    def build(self, num_classes: int, images: np.ndarray, bases: Sequence[Any] = ()) -> Any:
        """The mixed classifier.

        Args:
          num_classes: of the data that it is for.
          images: of these data.
          bases: the two networks, if they are loaded already.
        """
        std, rob = bases or (load_base(x, num_classes=num_classes) for x in (self.std, self.rob))
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

    Says the accuracies, then appends a row to `results.jsonl` in the folder. AutoAttack leaves its
    report there too, in a folder for each mixture and each setting.

    Args:
      mixture: the bases and how they are mixed.
      data: a data set of `jaxrobust.data`.
      folder: made if missing.
      evaluation: the attack.
      quiet: no progress bar, and no lines about progress in a log.
      say: where lines for the user go.

    Returns:
      The row.

    Raises:
      ValueError: if there are fewer test images than asked for, or bases and data do not fit.
      OSError: if the folder cannot be made, or, at the end, if a row could not be written.
    """
    folder = local_folder(folder)
    spec = checked(data, PARTS["data"], "data")
    dataset = built(spec, PARTS["data"], "data")
    images, labels = dataset.floats("test")
    if evaluation.n is not None and not 1 <= evaluation.n <= len(labels):
        raise ValueError(
            f"n must be between 1 and the {len(labels)} test images, got {evaluation.n}"
        )
    images, labels = images[: evaluation.n], labels[: evaluation.n]
    loaded = [_loaded(source, dataset.num_classes, say) for source in (mixture.std, mixture.rob)]
    both = mixture.build(dataset.num_classes, images, [base for base, _ in loaded])
    folder.mkdir(parents=True, exist_ok=True)
    keeper = Keeper(folder, say=say)
    what = {
        "mixture": _plain(vars(mixture)),
        "bases": dict(zip(("std", "rob"), (found for _, found in loaded), strict=True)),
        "network": None if mixture.network is None else _file(mixture.network),
        "data": {"name": spec.target, **spec.kwargs},
        "evaluation": _plain(vars(evaluation)),
    }
    target = both if evaluation.attack != "adaptive" else _adaptive(both, evaluation)
    if evaluation.attack == "pgd":
        figures = _pgd(target, images, labels, evaluation, quiet=quiet, say=say)
    else:
        report = _autoattack(target, images, labels, evaluation, quiet=quiet, say=say)
        kept = folder / "autoattack" / _name(what, evaluation)
        if keep_report(keeper, kept, report, None):
            say(f"report: {kept}")
        figures = _autoattack_figures(report, evaluation.attack)
    row = {**what, **figures, "provenance": provenance()}
    if keeper.write(append_row, folder / "results.jsonl", row):
        say(f"row: {folder / 'results.jsonl'}")
    keeper.close()
    return row


def _loaded(
    source: Source, num_classes: int, say: Callable[[str], None]
) -> tuple[Any, dict[str, Any]]:
    """A base, and what identifies its weights: a run's step, or the hash of a file."""
    if isinstance(source, Mapping):
        return load_base(source, num_classes=num_classes), _file(source["weights"])
    run = load_run(source, say=say)
    if run.dataset.num_classes != num_classes:
        raise ValueError(
            f"{source} has {run.dataset.num_classes} classes, the data have {num_classes}"
        )
    folder = run_folder(source)
    place = str(folder if in_bucket(folder) else pathlib.Path(folder).absolute())
    return run.logits_fn, {"run": place, "checkpoint": {"kind": "best", "step": run.step}}


def _file(path: str) -> dict[str, str]:
    with local_folder(path).open("rb") as file:
        return {"file": str(path), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _name(what: dict[str, Any], evaluation: MixedEvaluation) -> str:
    """The folder of a report: readable, and different wherever anything of the evaluation is."""
    mixture = what["mixture"]
    how = [f"{k}{mixture[k]}" for k in ("alpha", "smoothing", "nuts") if mixture[k] is not None]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
    radius = "eps" + str(np.float32(evaluation.eps))
    parts = [evaluation.attack, *how, evaluation.norm, radius, evaluation.version]
    parts += [*(evaluation.attacks or ()), f"seed{evaluation.seed}"]
    return short("_".join(parts)) + f"_{digest[:12]}"


def _adaptive(both: Any, evaluation: MixedEvaluation) -> Any:
    if isinstance(both, mixing.MixedNUTS):
        return mixing.guided(both, guide=both.surrogate)
    return mixing.evading(both, weight=evaluation.weight)


def _pgd(
    target: Any,
    images: np.ndarray,
    labels: np.ndarray,
    evaluation: MixedEvaluation,
    *,
    quiet: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    threat = getattr(threats, evaluation.norm)(np.float32(evaluation.eps))
    with EvaluationBar("mixed", len(labels), quiet=quiet, say=say) as bar:
        result = evaluate(
            target,
            images,
            labels,
            attacks=pgd_attacks(threat, steps=evaluation.steps),
            batch_size=evaluation.batch_size,
            seed=evaluation.seed,
            keep_images=False,
            advance=bar.advance,
        )
    say(f"clean accuracy   {result.clean}")
    for name, accuracy in (result.robust | {"worst case": result.worst}).items():
        say(f"{name:<16} {accuracy}")
    figures = result.figures()
    for line in warning_lines(figures["checks"]):
        say(line)
    return figures


def _autoattack(
    target: Any,
    images: np.ndarray,
    labels: np.ndarray,
    evaluation: MixedEvaluation,
    *,
    quiet: bool,
    say: Callable[[str], None],
) -> Report:
    version, attacks = evaluation.version, evaluation.attacks
    if isinstance(target, mixing.Evading) and attacks is None:
        version, attacks = "custom", ("apgd-ce", "apgd-t")  # what has a loss to put the term in
    with AttackBar(quiet=quiet, say=say) as bar:
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
    say(report.text())
    return report


def _autoattack_figures(report: Report, attack: str) -> dict[str, Any]:
    return {
        "autoattack": report.protocol,
        "clean_accuracy": report.clean_accuracy._asdict(),
        "robust_accuracy": {attack: report.robust_accuracy._asdict()},
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

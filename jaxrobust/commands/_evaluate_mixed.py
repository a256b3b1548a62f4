"""Evaluating two networks, mixed: one row."""

import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxrobust import evaluators, mixing, models, threats
from jaxrobust.commands._identity import digests_of_data
from jaxrobust.commands._keeper import Keeper
from jaxrobust.commands._progress import EvaluationBar
from jaxrobust.commands._run_rows import ROWS, row_lines
from jaxrobust.evaluation import (
    Evaluator,
    Row,
    Work,
    append_row,
    provenance,
    row_of,
    settings_of,
)
from jaxrobust.experiment import PARTS, evaluator_name, parsed
from jaxrobust.keys import key_of
from jaxrobust.processes import is_first
from jaxrobust.spec import Spec, built, checked, number
from jaxrobust.storage import check_folder, in_bucket, local_folder, run_folder
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
          num_classes: number of classes of its data.
          images: images of these data.
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
      steps: number of steps of PGD.
      n: the first n test images; default all.
      weight: the weight of the mixing network's output in the adaptive loss.
      version: the version of AutoAttack.
      attacks: AutoAttack's attacks, for version "custom".
      seed: the seed of all noise.
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
) -> Row:
    """Clean and attacked accuracy of two networks, mixed, on the test set of some data.

    Prints the accuracies, then appends a row to `rows.jsonl` in the folder. AutoAttack also writes
    its report there, in a separate folder for each mixture and each setting.

    Args:
      mixture: the bases and how they are mixed.
      data: a data set of `jaxrobust.data`.
      folder: created if missing.
      evaluation: the attack.
      quiet: no progress bar, and no lines about progress in a log.
      say: called with each line of output for the user.

    Returns:
      The row.

    Raises:
      ValueError: if there are fewer test images than asked for, or bases and data do not fit.
      OSError: if the folder cannot be made, or, at the end, if a row could not be written.
    """
    folder = local_folder(folder)
    check_folder(folder, name="folder")
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
    evaluator = _evaluator(target, evaluation)
    pictures: list[tuple[Any, ...]] = []
    started = time.perf_counter()
    with EvaluationBar("mixed", quiet=quiet, say=say) as bar:
        work = Work(
            seed=evaluation.seed,
            batch_size=evaluation.batch_size,
            autoattack_batch_size=evaluation.batch_size,
            folder=folder if keeper.usable else None,
            name=_name(what, evaluation),
            progress=bar.show,
            say=lambda line: say(line) if is_first() else None,
            write=keeper.write,
            draw=lambda path, draw, *, of: pictures.append((path, draw, of)),
        )
        found = evaluator(target, dataset, key=key_of(evaluation.seed), work=work)
    row = _row(found, evaluator, what, evaluation)
    row = replace(row, evaluated=digests_of_data(dataset))
    row = replace(row, cost={**found.cost, "seconds": round(time.perf_counter() - started, 2)})
    for line in row_lines(row, held_out=True):
        say(line)
    if keeper.write(append_row, folder / ROWS, row.to_dict()):
        say(f"row: {folder / ROWS}")
    for path, draw, of in pictures:
        keeper.draw(path, draw, of=of)
    keeper.close()
    return row


def _evaluator(target: Any, asked: MixedEvaluation) -> Evaluator:
    if asked.attack == "pgd":
        threat = getattr(threats, asked.norm)(np.float32(asked.eps))
        return evaluators.pgd(steps=asked.steps, images=asked.n, threat=threat)
    version, attacks = asked.version, asked.attacks
    if isinstance(target, mixing.Evading) and attacks is None:
        version, attacks = "custom", ("apgd-ce", "apgd-t")  # what has a loss to put the term in
    return evaluators.autoattack(
        norm=asked.norm,  # type: ignore[arg-type]
        eps=asked.eps,
        version=version,
        attacks=None if attacks is None else tuple(attacks),
        images=asked.n,
        seed=asked.seed,
    )


def _row(found: Row, evaluator: Evaluator, what: dict[str, Any], asked: MixedEvaluation) -> Row:
    """The evaluator's row, with its origin."""
    if asked.attack == "adaptive":
        clean, attacked = found.numbers
        numbers = (clean, replace(attacked, column=f"adaptive {attacked.column}"))
        found = replace(found, title=f"adaptive {found.title}", numbers=numbers)
    row = replace(
        found,
        kind=evaluator_name(evaluator),
        settings=settings_of(evaluator),
        run=_title(what["mixture"]),
        task=what,
        seed=asked.seed,
        provenance=provenance(),
    )
    return row_of(row.to_dict())


def _title(mixture: Mapping[str, Any]) -> str:
    """The mixture as text."""
    names = [b["weights"] if isinstance(b, dict) else b for b in (mixture["std"], mixture["rob"])]
    how = {k: mixture[k] for k in ("alpha", "smoothing", "nuts") if mixture[k] is not None}
    return f"{' with '.join(names)}, {', '.join(f'{k} {v}' for k, v in how.items())}"


def _loaded(
    source: Source, num_classes: int, say: Callable[[str], None]
) -> tuple[Any, dict[str, Any]]:
    """A base and the identity of its weights: a run's step, or the hash of a file."""
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
    """The prefix of a report's folder: readable, and different for different mixtures."""
    mixture = what["mixture"]
    how = [f"{k}{mixture[k]}" for k in ("alpha", "smoothing", "nuts") if mixture[k] is not None]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
    return "_".join([evaluation.attack, *how, digest[:12]])


def _adaptive(both: Any, evaluation: MixedEvaluation) -> Any:
    if isinstance(both, mixing.MixedNUTS):
        return mixing.guided(both, guide=both.surrogate)
    return mixing.evading(both, weight=evaluation.weight)


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

"""What a trade-off evaluates of one run; what was evaluated once is kept in the run's folder."""

import json
import pathlib
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxrobust import mixing, threats
from jaxrobust.commands._autoattack import Protocol, attack_run, keep_report
from jaxrobust.commands._evaluate import attacks_of
from jaxrobust.commands._identity import autoattack_name, pgd_text, provenance_of, task_in, task_of
from jaxrobust.commands._keeper import Keeper
from jaxrobust.convolutions import jit
from jaxrobust.evaluation import (
    PGD,
    accuracy,
    append_row,
    evaluate,
    over_examples,
)
from jaxrobust.experiment import Certificates, EpsCurves, Evaluation, Experiment, Tradeoff, to_dict
from jaxrobust.keys import key_of
from jaxrobust.losses import margin
from jaxrobust.training import Run, load_run, read_rows
from jaxrobust.typing import Norm

NOISY_IMAGES = 2000  # of a forward pass in the sampling of smoothed classifiers


class Judge:
    """The further evaluations of a run.

    Each is a row of `evaluations.jsonl` in the run's folder: what was evaluated, the checkpoint,
    the task, the settings, and what was found. A row is taken, and not computed again, only where
    all but what was found agree.

    Args:
      folder: of the run.
      experiment: of the run.
      evaluation: the settings that all runs are attacked with.
      checkpoint: as rows name it, `{"kind": "best", "step": ...}`.
      keeper: writes the rows; what cannot be written is computed all the same.
      quiet: no progress bars, and no lines about progress in a log.
      say: where lines for the user go.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        experiment: Experiment,
        evaluation: Evaluation,
        checkpoint: dict[str, Any],
        keeper: Keeper,
        quiet: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder, self.keeper = folder, keeper
        self._experiment, self._evaluation, self._checkpoint = experiment, evaluation, checkpoint
        self._quiet, self._say = quiet, say
        self._path = folder / "evaluations.jsonl"

    @cached_property
    def run(self) -> Run:
        """The network; loaded only where something is left to do."""
        run = load_run(
            self.folder,
            checkpoint=self._checkpoint["kind"],
            trust=self._experiment.packages(),
            say=self._say,
        )
        if run.step != self._checkpoint["step"]:
            raise ValueError(
                f"{self.folder}: the {self._checkpoint['kind']} checkpoint is of step {run.step}, "
                f"its evaluation of step {self._checkpoint['step']}; run the same command again"
            )
        return run

    def add(self, row: dict[str, Any], tradeoff: Tradeoff) -> None:
        """Puts all that the trade-off asks for into the row of a run."""
        row["autoattack_accuracy"] = {}
        for norm, eps in tradeoff.autoattack.items():
            name = f"{norm} {eps:.6g}"
            if tradeoff.autoattack_images is not None:
                name += f", {tradeoff.autoattack_images} images"
            found = self.autoattack(norm, eps, tradeoff.autoattack_images)
            row["autoattack_accuracy"][name] = found["robust_accuracy"]
            row.setdefault("autoattack", {})[name] = found
            if tradeoff.per_class and "per_class" not in row:
                row["per_class"] = {"attack": f"AutoAttack {name}", **found["classes"]}
        if tradeoff.per_class and "per_class" not in row:
            row["per_class"] = self.per_class()
        if tradeoff.eps_curves is not None:
            curves = tradeoff.eps_curves
            row["eps_curves"] = {n: self.eps_curve(n, curves) for n in curves.radii}
        if tradeoff.certificates is not None:
            row["certified"] = self.certified(tradeoff.certificates)

    def autoattack(self, norm: str, eps: float, images: int | None) -> dict[str, Any]:
        """The standard AutoAttack's figures; its finished items are not done again either."""

        asked = Protocol(norm, n=images)

        def compute() -> dict[str, Any]:
            name = autoattack_name(self._checkpoint, eps=[eps], **asked._asdict())
            kept = self.folder / "autoattack" / name if self.keeper.usable else None
            options: dict[str, Any] = {"quiet": self._quiet, "say": self._say}
            report = attack_run(self.run, asked, eps, folder=kept, **options)
            if kept is not None:
                keep_report(self.keeper, kept, report, self.run)
            clean, *_, robust = report.masks.values()
            return {
                "protocol": report.protocol,
                "clean_accuracy": report.clean_accuracy._asdict(),
                "robust_accuracy": report.robust_accuracy._asdict(),
                "checks": [check._asdict() for check in report.checks if not check.passed],
                "cost": report.cost,
                "classes": self._classes(report.labels, clean, robust),
            }

        settings = {"norm": norm, "eps": eps, "images": images, "version": asked.version}
        return self._kept("autoattack", {**settings, "seed": asked.seed}, compute)

    def per_class(self) -> dict[str, Any]:
        """Right images of each class, clean and under PGD on cross-entropy and margin."""
        settings = self._evaluation

        def compute() -> dict[str, Any]:
            images, labels = self.run.dataset.floats("test")
            attacks = attacks_of(self._experiment, settings)
            result = self._attacked(images, labels, attacks)
            robust = np.logical_and.reduce(list(result.masks.values()))
            attack = worst_text(to_dict(settings), attacks)
            classes = self._classes(labels, result.masks["clean"], robust)
            return {"attack": attack, **classes, "checks": result.figures()["checks"]}

        return self._kept("per_class", to_dict(settings), compute)

    def _classes(self, labels: np.ndarray, clean: np.ndarray, robust: np.ndarray) -> dict[str, Any]:
        """Counts by class."""
        size = self.run.dataset.num_classes
        masks = {"images": np.ones(len(labels), bool), "clean": clean, "robust": robust & clean}
        return {k: np.bincount(labels[mask], minlength=size).tolist() for k, mask in masks.items()}

    def eps_curve(self, norm: Norm, curves: EpsCurves) -> dict[str, Any]:
        """The accuracy at each radius; points that fell at a smaller one count as fallen."""
        restarts = self._evaluation.restarts
        radii = [float(eps) for eps in curves.radii[norm]]

        def compute() -> dict[str, Any]:
            images, labels = (x[: curves.images] for x in self.run.dataset.floats("test"))
            left, points, checks = None, [], []
            for eps in radii:
                threat = getattr(threats, norm)(np.float32(eps))
                attack = PGD(threat=threat, steps=curves.steps, restarts=restarts, loss=margin)
                result = self._attacked(images, labels, {"margin_pgd": attack})
                masks = result.masks
                checks += [c for c in result.figures()["checks"] if c not in checks]
                if left is None:
                    left = masks["clean"]
                    points.append({"eps": 0.0, **accuracy(left)._asdict()})
                left = left & masks["margin_pgd"]
                points.append({"eps": eps, **accuracy(left)._asdict()})
            name = f"margin PGD-{pgd_text(attacked)}"
            return {"attack": name, "norm": norm, "points": points, "checks": checks}

        attacked = {"steps": curves.steps, "restarts": restarts}
        settings = {"norm": norm, "radii": radii, "images": curves.images, **attacked}
        return self._kept("eps_curve", settings, compute)

    def certified(self, settings: Certificates) -> dict[str, Any]:
        """Certified l_2 radii of the smoothed network; 0 where its class is wrong or unsure."""

        def compute() -> dict[str, Any]:
            images, labels = (x[: settings.images] for x in self.run.dataset.floats("test"))
            counts = [
                self._counts(images, settings, draw, samples)
                for draw, samples in enumerate((settings.selection, settings.samples))
            ]
            bounds = mixing.smoothed_bounds(*counts, confidence=settings.confidence)
            radius = mixing.certified_radius_smoothing(
                np.float32(bounds.lower), np.float32(bounds.upper), alpha=1.0, sigma=settings.sigma
            )
            right = bounds.labels == labels
            radii = np.where(right, np.asarray(radius), 0.0)
            return {
                "norm": "l2",
                "smoothed_accuracy": accuracy(right)._asdict(),
                "points": [
                    {"radius": float(r), **accuracy(radii > r)._asdict()} for r in settings.radii
                ],
                # Downwards: what is printed is certified too.
                "radii": np.sort(np.floor(radii.astype(np.float64) * 1e4) / 1e4).tolist(),
            }

        return self._kept("certified", to_dict(settings), compute)

    def _counts(
        self, images: np.ndarray, settings: Certificates, draw: int, samples: int
    ) -> np.ndarray:
        """Votes under noise; an image's noise is a function of its index, and of the draw."""
        key = jax.random.fold_in(key_of(self.run.experiment.seed), draw)
        indices, shapes = np.arange(len(images)), [min(len(images), 100)]

        def votes(keys: Array, images: Array) -> Array:
            return _votes(self.run.logits_fn, keys, images, settings.sigma, samples)

        return over_examples(votes, key, indices, images, shapes=shapes)

    def _attacked(self, images: np.ndarray, labels: np.ndarray, attacks: dict[str, Any]) -> Any:
        return evaluate(
            self.run.logits_fn,
            images,
            labels,
            attacks=attacks,
            batch_size=self._evaluation.batch_size,
            seed=self.run.experiment.seed,
            keep_images=False,
        )

    def _kept(
        self, what: str, settings: dict[str, Any], compute: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """What was found, now or earlier, with its settings and its time."""
        task = task_of(self._experiment)
        key = {"what": what, "checkpoint": self._checkpoint, "task": task, "settings": settings}
        asked = json.loads(json.dumps(key))
        for row in reversed(read_rows(self._path) if self._path.exists() else []):
            if _same(row, asked):
                return row["found"]
        found = json.loads(json.dumps(compute()))
        found = {"settings": asked["settings"], **found}
        row = {**asked, "found": found, "provenance": provenance_of(self._experiment)}
        self.keeper.write(append_row, self._path, row)
        return found


def _same(row: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether a kept row is of what is asked for."""
    try:
        return all((task_in(row[k]) if k == "task" else row[k]) == v for k, v in asked.items())
    except (KeyError, TypeError, ValueError):  # a row of another kind
        return False


def worst_text(evaluation: dict[str, Any], attacks: Iterable[str]) -> str:
    """The attacks whose pointwise worst is meant by "worst PGD"."""
    grid = " and grid" if "spatial_grid" in attacks else ""
    return f"PGD-{pgd_text(evaluation)} (CE and margin){grid}"


@partial(jit, static_argnames="samples")
def _votes(logits_fn: Any, keys: Array, images: Array, sigma: Array, samples: int) -> Array:
    batch = max(1, min(samples, NOISY_IMAGES // len(images)))
    return mixing.smoothed_counts(
        logits_fn, keys, images, sigma=sigma, samples=samples, batch_size=batch
    )


def seconds_of(rows: Sequence[dict[str, Any]], batch_size: int) -> list[float]:
    """What each epoch took, compilation and validation included, from the rates in a run's metrics.

    Of runs that were trained as one program, it is this one's share.
    """
    seconds, before = [], 0
    for row in rows:
        if row.get("examples_per_second"):
            examples = (row["step"] - before) * batch_size
            seconds.append(examples / row["examples_per_second"] / row.get("members", 1))
        before = row["step"]
    return seconds

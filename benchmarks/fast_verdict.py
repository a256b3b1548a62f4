"""The fast verdict beside the standard AutoAttack: robust points, passes and seconds of both."""

import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.evaluation import autoattack, verdict

GOLDEN = pathlib.Path(__file__).parents[1] / "tests" / "golden"
DIGITS = (
    ("digits_robust", "linf", 0.1),
    ("digits_standard", "linf", 0.1),
    ("digits_robust", "l2", 0.5),
    ("digits_robust", "l1", 2.0),
)
DIGITS_SPEC = (
    {"op": "conv", "name": "conv1", "stride": 1, "padding": "SAME"},
    {"op": "relu"},
    {"op": "conv", "name": "conv2", "stride": 2, "padding": "SAME"},
    {"op": "relu"},
    {"op": "flatten"},
    {"op": "dense", "name": "dense"},
)
NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}
ALLOWED = 0.005  # of the points, above AutoAttack
SHARE = 0.2  # of its passes


class Case(NamedTuple):
    """A network on some images, and a ball.

    Attributes:
      model: the network's name.
      norm: of the ball.
      eps: its radius in image units.
      logits_fn: a pytree of the network's arrays.
      images: `[n, h, w, c]` float32 in [0, 1].
      labels: `[n]`.
      reference: points that the reference implementation of AutoAttack leaves, -1 where unknown.
    """

    model: str
    norm: Any
    eps: float
    logits_fn: Any
    images: np.ndarray
    labels: np.ndarray
    reference: int


class VerdictRow(NamedTuple):
    """The verdict and AutoAttack on one case with one seed.

    Attributes:
      model: the network's name.
      norm: of the ball.
      eps: its radius.
      seed: of both evaluations.
      points: images.
      clean: images that are classified correctly.
      robust: points that the verdict leaves.
      autoattack: points that AutoAttack leaves here.
      reference: points that the reference implementation leaves, -1 where unknown.
      share: the verdict's passes, forward and backward together, over AutoAttack's.
      forward_share: its forward passes over AutoAttack's.
      backward_share: its backward passes over AutoAttack's.
      seconds: of the verdict, the least of the repeats.
      autoattack_seconds: likewise of AutoAttack.
      first_seconds: of the verdict's first run, compilation included.
      autoattack_first_seconds: likewise of AutoAttack.
      holds: at most half a percent of the points above AutoAttack, at most a fifth of its passes.
      warnings: the verdict's checks that failed.
      stages: per stage of the verdict its name, the points it leaves, forward and backward passes
        per point, and the seconds of the first run.
    """

    model: str
    norm: str
    eps: float
    seed: int
    points: int
    clean: int
    robust: int
    autoattack: int
    reference: int
    share: float
    forward_share: float
    backward_share: float
    seconds: float
    autoattack_seconds: float
    first_seconds: float
    autoattack_first_seconds: float
    holds: bool
    warnings: list[str]
    stages: list[dict[str, Any]]


def fast_verdict_table(
    *,
    models: Sequence[tuple[str, str, float]] = (),
    digits: bool = True,
    points: int | None = None,
    seeds: int = 1,
    repeats: int = 1,
) -> list[VerdictRow]:
    """Runs both evaluations on the digits networks of the tests, and on other networks from files.

    Args:
      models: path, norm and radius of each. The file is an npz with `spec`, a JSON list of the
        operations in order (`conv` with `name`, `stride` and `padding`, `relu`, `flatten`, `dense`
        with `name`), `NAME_kernel` and `NAME_bias`, maybe `mean` and `std`, `labels`, and `images`
        (uint8 or in [0, 1]) or `images_file`, a file beside it; maybe `reference`, the number of
        points that the reference implementation of AutoAttack leaves.
      digits: whether the digits networks are among them.
      points: the first so many images; default all.
      seeds: number of seeds, from 0 on.
      repeats: of each evaluation with seed 0, for its seconds.

    Returns:
      A row per case and seed.

    Raises:
      ValueError: if a file is no such network.
    """
    cases = [digits_case(*case) for case in DIGITS] if digits else []
    cases += [_from_file(pathlib.Path(path), norm, eps) for path, norm, eps in models]
    shown = [
        case._replace(images=case.images[:points], labels=case.labels[:points]) for case in cases
    ]
    if points is not None:  # what the reference leaves of fewer points is not known
        shown = [case._replace(reference=-1) for case in shown]
    return [
        _row(case, seed, repeats if seed == 0 else 1) for case in shown for seed in range(seeds)
    ]


def _row(case: Case, seed: int, repeats: int) -> VerdictRow:
    arguments = case.logits_fn, case.images, case.labels
    options: dict[str, Any] = {"norm": case.norm, "eps": case.eps, "seed": seed}
    timed: dict[str, list[float]] = {"verdict": [], "autoattack": []}
    found: dict[str, Any] = {}
    for _ in range(repeats):  # in turn
        for name, call in (("verdict", verdict), ("autoattack", autoattack)):
            started = time.perf_counter()
            report: Any = call(*arguments, **options)
            timed[name].append(time.perf_counter() - started)
            found.setdefault(name, report)
    ours, theirs = found["verdict"], found["autoattack"]
    passes = {name: _passes(report) for name, report in found.items()}
    forward, backward = (
        ours / theirs for ours, theirs in zip(passes["verdict"], passes["autoattack"], strict=True)
    )
    share = sum(passes["verdict"]) / sum(passes["autoattack"])
    robust, left = (report.robust_accuracy.correct for report in (ours, theirs))
    return VerdictRow(
        model=case.model,
        norm=case.norm,
        eps=case.eps,
        seed=seed,
        points=len(case.labels),
        clean=ours.clean_accuracy.correct,
        robust=robust,
        autoattack=left,
        reference=case.reference,
        share=share,
        forward_share=forward,
        backward_share=backward,
        seconds=min(timed["verdict"]),
        autoattack_seconds=min(timed["autoattack"]),
        first_seconds=timed["verdict"][0],
        autoattack_first_seconds=timed["autoattack"][0],
        holds=robust <= left + ALLOWED * len(case.labels) and share <= SHARE,
        warnings=[check.name for check in ours.checks if not check.passed],
        stages=_stages(ours),
    )


def _passes(report: Any) -> tuple[float, float]:
    """Forward and backward passes of all stages."""
    forwards, backwards = (
        sum(cost[name] for cost in report.cost.values()) for name in ("forwards", "backwards")
    )
    return forwards, backwards


def _stages(report: Any) -> list[dict[str, Any]]:
    return [
        {
            "stage": name,
            "robust": int(report.masks[name].sum()),
            "forwards_per_point": forwards,
            "backwards_per_point": backwards,
            "seconds": report.cost[name]["seconds"],
        }
        for name, (forwards, backwards) in report.passes_per_point.items()
    ]


def digits_case(model: str, norm: str, eps: float) -> Case:
    with np.load(GOLDEN / f"{model}.npz") as data, np.load(GOLDEN / "autoattack_digits.npz") as aa:
        arrays = {k: jnp.asarray(data[k]) for k in data.files if k.endswith(("kernel", "bias"))}
        reference = int(aa[f"{model}_{NAMES[norm]}/cascade/square"].sum())
        images, labels = data["x"], data["y"]
    return Case(model, norm, eps, _network(DIGITS_SPEC, arrays), images, labels, reference)


def _from_file(path: pathlib.Path, norm: str, eps: float) -> Case:
    try:
        with np.load(path, allow_pickle=False) as archive:
            data = dict(archive)
        spec, labels = json.loads(str(data["spec"])), data["labels"]
        images = data.get("images")
        if images is None:
            with np.load(path.parent / str(data["images_file"]), allow_pickle=False) as archive:
                images = archive["images"]
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} holds no network with images ({error})") from error
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / np.float32(255)
    names = ("kernel", "bias", "mean", "std")
    arrays = {k: jnp.asarray(v) for k, v in data.items() if k.endswith(names)}
    logits_fn, reference = _network(spec, arrays), int(data.get("reference", -1))
    return Case(path.stem, norm, eps, logits_fn, images[: len(labels)], labels, reference)


def _network(spec: Sequence[dict[str, Any]], arrays: dict[str, Any]) -> Any:
    """The operations in order, with the arrays as a pytree."""

    def logits(arrays: dict[str, Any], x: Any) -> Any:
        if "mean" in arrays:
            x = (x - arrays["mean"]) / arrays["std"]
        for operation in spec:
            x = OPERATIONS[operation["op"]](x, operation, arrays)
        return x

    return jax.tree_util.Partial(logits, arrays)


def _convolution(x: Any, operation: dict[str, Any], arrays: dict[str, Any]) -> Any:
    name, padding = operation["name"], operation["padding"]
    padding = padding if isinstance(padding, str) else [tuple(pair) for pair in padding]
    strides, axes = (operation["stride"],) * 2, ("NHWC", "HWIO", "NHWC")
    kernel = arrays[f"{name}_kernel"]
    x = jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=axes)
    return x + arrays[f"{name}_bias"][None, None, None]


def _dense(x: Any, operation: dict[str, Any], arrays: dict[str, Any]) -> Any:
    name = operation["name"]
    return x @ arrays[f"{name}_kernel"] + arrays[f"{name}_bias"][None]


OPERATIONS = {
    "conv": _convolution,
    "dense": _dense,
    "relu": lambda x, operation, arrays: jax.nn.relu(x),
    "flatten": lambda x, operation, arrays: x.reshape(len(x), -1),
}

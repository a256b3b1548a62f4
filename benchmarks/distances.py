"""Minimum-norm attacks on the digits networks: distances, optimality, passes and seconds."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.fast_verdict import GOLDEN, digits_case
from jaxrobust.evaluation import distances, minimum_norm_attacks
from jaxrobust.typing import ANY_NORMS

MODELS = ("digits_robust", "digits_standard")
REFERENCE = {  # names in the file of the authors' distances, at the same settings
    ("fmn", "linf"): "fmn_linf_1000",
    ("fmn", "l2"): "fmn_l2_1000_escape",
    ("fmn", "l1"): "fmn_l1_1000_escape",
    ("fmn", "l0"): "fmn_l0_1000",
    ("ddn", "l2"): "ddn_1000",
    ("pdpgd", "linf"): "pdpgd_linf_500",
    ("pdpgd", "l2"): "pdpgd_l2_500",
    ("pdpgd", "l1"): "pdpgd_l1_500",
    ("pdpgd", "l0"): "pdpgd_l0_500",
    ("sigma-zero", "l0"): "sigma_zero_1000",
    ("deepfool", "linf"): "deepfool_linf_100",
    ("deepfool", "l2"): "deepfool_l2_100",
    ("superdeepfool", "l2"): "superdeepfool",
}
POINTS = 100  # that the file has distances of


class DistanceRow(NamedTuple):
    """One attack on one network in one norm, or all attacks of that norm together.

    Attributes:
      model: the network's name.
      norm: of the distances.
      attack: its name, or "all".
      points: images, clean errors at distance 0 among them.
      found: those with a finite distance.
      median: distance over all points.
      mean: distance over the points with one.
      reference_median: that the authors' code finds on the same points with the same settings, NaN
        where unknown.
      reference_mean: likewise.
      optimality: AttackBench's, beside the pointwise best of the attacks of this norm.
      optimality_exact_area: the same with the true area.
      forwards_per_point: forward passes of a point that is attacked.
      backwards_per_point: likewise backward passes.
      seconds: of the attack, compilation included.
    """

    model: str
    norm: str
    attack: str
    points: int
    found: int
    median: float
    mean: float
    reference_median: float
    reference_mean: float
    optimality: float
    optimality_exact_area: float
    forwards_per_point: float
    backwards_per_point: float
    seconds: float


def distances_table(
    *, norms: Sequence[str] = ANY_NORMS, points: int = POINTS, steps: int | None = None
) -> list[DistanceRow]:
    """Runs the ensemble of each norm on both digits networks of the tests.

    Args:
      norms: of "linf", "l2", "l1", "l0".
      points: the first so many images.
      steps: of every attack; default: as published, 1000, 500 (PDPGD) and 100 (DeepFool).

    Returns:
      A row per network, norm and attack, and one for all attacks of a norm.
    """
    with np.load(GOLDEN / "minnorm_public_digits.npz") as stored:
        reference = dict(stored)
    known = points == POINTS and steps is None
    rows = []
    for model in MODELS:
        case = digits_case(model, "linf", 0.1)
        data = case.images[:points], case.labels[:points]
        for norm in norms:
            settings = {} if steps is None else {"steps": steps}
            attacks = minimum_norm_attacks(norm, **settings)  # type: ignore[arg-type]
            found = distances(case.logits_fn, *data, norm=norm, attacks=attacks)  # type: ignore[arg-type]
            for name, one in found.to_dict()["attacks"].items():
                place = f"{model}.{REFERENCE[name, norm]}.distance"
                theirs = reference[place] if known else np.full(1, np.inf)
                rows.append(_row((model, norm, name, points), one, theirs))
            rows.append(_together(model, norm, points, found))
    return rows


def _row(named: tuple[str, str, str, int], one: dict[str, Any], theirs: np.ndarray) -> DistanceRow:
    model, norm, attack, points = named
    near, nothing = theirs[np.isfinite(theirs)], float("nan")
    return DistanceRow(
        model=model,
        norm=norm,
        attack=attack,
        points=points,
        found=one["found"],
        median=one["median"],
        mean=one["mean"],
        reference_median=float(np.median(theirs)) if len(near) else nothing,
        reference_mean=float(near.mean()) if len(near) else nothing,
        optimality=one["optimality"],
        optimality_exact_area=one["optimality_exact_area"],
        forwards_per_point=one["forwards_per_point"],
        backwards_per_point=one["backwards_per_point"],
        seconds=one["seconds"],
    )


def _together(model: str, norm: str, points: int, found: Any) -> DistanceRow:
    passes = np.sum(list(found.passes_per_point.values()), axis=0)
    count, nothing = int(np.isfinite(found.best).sum()), float("nan")
    seconds = sum(cost["seconds"] for cost in found.cost.values())
    distance = (found.median, found.mean, nothing, nothing)
    costs = (float(passes[0]), float(passes[1]), seconds)
    return DistanceRow(model, norm, "all", points, count, *distance, 1.0, 1.0, *costs)

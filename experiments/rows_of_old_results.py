"""Turns results of version 0.1 into rows: results.json of a trade-off, results.jsonl of a run.

Command:  python experiments/rows_of_old_results.py FILE...
Result:   The files are rewritten; `jaxrobust table` prints the same tables from them as before.
"""

import json
import pathlib
import sys
from typing import Any

from jaxrobust import evaluators
from jaxrobust.evaluation import Number, Row, row_of, settings_of
from jaxrobust.evaluators._per_class import _worst
from jaxrobust.evaluators._settings import pgd_text
from jaxrobust.experiment import evaluator_name
from jaxrobust.files import replace_text, to_json


def numbered(column, accuracy):
    names = ("value", "low", "high", "correct", "total")
    return Number(column, *(accuracy[name] for name in names))


def kept(old, evaluator, title, numbers, detail, cost=None):
    """A row with what it is of."""
    experiment = old["experiment"]
    row = Row(
        title,
        tuple(numbers),
        detail,
        cost or {},
        kind=evaluator_name(evaluator),
        settings=settings_of(evaluator),
        run=experiment["name"],
        task={name: experiment[name] for name in ("data", "model", "threat", "seed")},
        checkpoint=old["checkpoint"],
        seed=old.get("seeds", {"attacks": experiment["seed"]})["attacks"],
        provenance=old["provenance"],  # of the run; the first versions had that of the report only
    )
    return row_of(row.to_dict()).to_dict()


def rows_of(old, columns=()):
    """The rows of one run of an old trade-off, or of one line of an old results.jsonl.

    The first versions left the restarts out of the names of columns; such names stay.
    """
    if isinstance(old.get("autoattack"), dict) and "version" in old["autoattack"]:
        return [autoattack_line(old)]
    settings, found = old["evaluation"], []
    evaluator: Any
    pgd = evaluators.pgd(
        steps=settings["steps"],
        step_size=settings.get("step_size"),
        restarts=settings.get("restarts", 1),
        grid=tuple(settings.get("spatial_grid", (5, 5, 31))),
    )
    clean, text = numbered("clean", old["clean_accuracy"]), pgd_text(pgd)
    shown = str(pgd.steps) if f"pgd ({pgd.steps})" in columns else text
    attacked = [numbered(f"{name} ({shown})", v) for name, v in old["robust_accuracy"].items()]
    worst = numbered("worst PGD", old["worst_case_accuracy"])
    title = f"PGD-{text} (CE and margin), {old['threat']}"
    checks = {"checks": old.get("checks", [])}
    detail = {"threat": old["threat"], **checks}
    found.append(kept(old, pgd, title, (clean, *attacked, worst), detail))
    if "spatial_accuracy" in old:
        grid = evaluators.spatial_grid(
            max_degrees=settings["spatial_degrees"],
            max_shift_px=settings["spatial_shift_px"],
            counts=pgd.grid,
        )
        name = f"{grid.max_degrees:g} degrees, {grid.max_shift_px:g} px"
        title = f"worst point of a grid of rotations and shifts, {name}"
        numbers = [clean, *(numbered(k, v) for k, v in old["spatial_accuracy"].items())]
        checks = {"checks": old.get("spatial_checks", [])}
        found.append(kept(old, grid, title, numbers, checks))
    attacks = {}
    for name, accuracy in old.get("autoattack_accuracy", {}).items():
        norm, eps = name.split(",")[0].split()
        more = old.get("autoattack", {}).get(name, {})
        images = more.get("settings", {}).get("images")
        eps = more.get("settings", {}).get("eps", float(eps))
        attacks[name] = evaluators.autoattack(norm=norm, eps=eps, images=images)
        title = f"AutoAttack standard, {norm} eps {eps:.6g}"
        own = numbered("clean", more.get("clean_accuracy", old["clean_accuracy"]))
        detail = {k: more[k] for k in ("protocol", "checks", "classes") if k in more}
        numbers = [own, numbered(f"AutoAttack {name}", accuracy)]
        cost = {"attacks": more["cost"]} if "cost" in more else {}
        found.append(kept(old, attacks[name], title, numbers, detail, cost))
    if "per_class" in old:
        per_class = dict(old["per_class"])
        attack = per_class.pop("attack")
        counts = {k: per_class[k] for k in ("images", "clean", "robust")}
        evaluator = evaluators.per_class(attack=attacks[attack.removeprefix("AutoAttack ")])
        numbers = [Number(f"worst class, {k}", *_worst(counts, k)) for k in ("clean", "robust")]
        title = f"accuracy of each class under {attack}"
        found.append(kept(old, evaluator, title, numbers, {"attack": attack, "counts": counts}))
    for norm, curve in old.get("eps_curves", {}).items():
        asked = curve["settings"]
        evaluator = evaluators.eps_curve(
            norm=norm,
            radii=tuple(asked["radii"]),
            steps=asked["steps"],
            restarts=asked.get("restarts", 1),
            images=asked["images"],
        )
        detail = {"points": curve["points"], "checks": curve.get("checks", [])}
        title = f"accuracy against {norm} eps under {curve['attack']}"
        found.append(kept(old, evaluator, title, (), detail))
    if "certified" in old:
        asked = {**old["certified"]["settings"]}
        evaluator = evaluators.certified(**{**asked, "radii": tuple(asked["radii"])})
        end = f"by smoothing, sigma {evaluator.sigma:g}, {asked['images']} images"
        points = old["certified"]["points"]
        numbers = [numbered(f"certified l2 {p['radius']:g} {end}", p) for p in points]
        detail = {k: old["certified"][k] for k in ("smoothed_accuracy", "radii")}
        title = f"certified by randomized smoothing, sigma {evaluator.sigma:g}"
        found.append(kept(old, evaluator, title, numbers, detail))
    return found


def autoattack_line(old):
    """A line of a run's results.jsonl that AutoAttack wrote."""
    protocol = old["autoattack"]
    custom = protocol["version"] == "custom"
    attacks = tuple(attack["attack"] for attack in protocol["attacks"]) if custom else None
    evaluator = evaluators.autoattack(
        norm=protocol["norm"],
        eps=protocol["eps"],
        version=protocol["version"],
        attacks=attacks,
        images=old["clean_accuracy"]["total"],
        seed=protocol["seed"],
        individual=protocol["individual"],
    )
    (robust,) = old["robust_accuracy"].values()
    numbers = (
        numbered("clean", old["clean_accuracy"]),
        numbered(f"AutoAttack {evaluator._column()}", robust),
    )
    detail = {"protocol": protocol, "checks": old["checks"]}
    cost = {"seconds": old["seconds"]}
    return kept(old, evaluator, f"AutoAttack {evaluator._words()}", numbers, detail, cost)


def tradeoff(old):
    """The whole results.json of an old trade-off."""
    members = {}
    for name, member in old["members"].items():
        runs = [
            {
                "experiment": run["experiment"],
                # The first versions kept nothing but the seconds of a training.
                "training": run.get("training", {"seconds": run.get("seconds")}),
                "rows": rows_of({"provenance": old["provenance"], **run}, member["figures"]),
            }
            for run in member["runs"]
        ]
        failure = {"failure": member["failure"]} if "failure" in member else {}
        members[name] = {"objective": member["objective"], "runs": runs, **failure}
    return {
        "name": old["name"],
        "seeds": old["seeds"],
        "members": members,
        "provenance": old["provenance"],
        "seconds": old["seconds"],
    }


def main(paths):
    for path in map(pathlib.Path, paths):
        if path.suffix == ".jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines() if line]
            rows = [row for line in lines for row in rows_of(line)]
            replace_text(path, "".join(to_json(row) + "\n" for row in rows))
        else:
            replace_text(path, to_json(tradeoff(json.loads(path.read_text())), indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

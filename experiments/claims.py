"""The papers' central claims against the committed rows, as tables for docs/claims.md.

Every line is one difference that a claim says is positive, with a 95 % interval and a verdict that
follows from it: "seen" if the interval lies above 0, "contradicted" if it lies below, else "not seen
at this scale". Differences are paired: by seed, with Student's interval over the seeds, or by seed
and test image, with the bootstrap of `evaluation.compare_fronts`.

Command:  python experiments/claims.py [--write]
"""

import argparse
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jaxrobust.commands import compared_fronts
from jaxrobust.evaluation import numbers_of, row_of

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
PAGE = ROOT / "docs" / "claims.md"
MARK = "<!-- python experiments/claims.py {} -->"
HEAD = ("claim", "difference, in points", "value", "95 % interval", "seeds", "verdict", "rows")


class Found(NamedTuple):
    """A difference that a claim says is positive.

    Attributes:
      value: its mean.
      low: lower end of its 95 % interval.
      high: upper end.
      seeds: the number of training seeds.
    """

    value: float
    low: float
    high: float
    seeds: int

    @property
    def verdict(self) -> str:
        """What the interval says of the claim."""
        if self.low > 0:
            return "seen"
        return "contradicted" if self.high < 0 else "not seen at this scale"


class Claim(NamedTuple):
    """One line of a table.

    Attributes:
      text: what the paper claims.
      difference: in words, what must be positive.
      file: of the rows, in `experiments/results`.
      found: computes the difference from the file's content.
    """

    text: str
    difference: str
    file: str
    found: Callable[[Any], Found]


def by_seed(differences: ArrayLike) -> Found:
    """The mean of paired differences, with Student's 95 % interval over the seeds.

    Args:
      differences: one for each seed, at least two.

    Returns:
      `Found`.
    """
    values = np.asarray(differences, np.float64)
    mean, error = float(values.mean()), float(stats.sem(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return Found(mean, mean - half, mean + half, len(values))


def column(results: Any, member: str, name: str) -> np.ndarray:
    """A number of a member of a trade-off, by seed."""
    runs = results["members"][member]["runs"]
    rows = ([row_of(row) for row in run["rows"]] for run in runs)
    return np.array([numbers_of(found)[name].value for found in rows])


def between(first: str, second: str, name: str) -> Callable[[Any], Found]:
    """How far one member's number exceeds another's."""
    return lambda results: by_seed(column(results, first, name) - column(results, second, name))


def gap(results: Any) -> Found:
    """How much more GAIRAT loses from PGD on cross-entropy to AutoAttack than PGD-AT does."""
    losses = [
        column(results, name, "pgd (20)") - column(results, name, "AutoAttack linf 0.15")
        for name in ("GAIRAT", "PGD-AT")
    ]
    return by_seed(losses[0] - losses[1])


def smallest_step(name: str, sign: int) -> Callable[[Any], Found]:
    """The smallest rise, or fall, of a number from each beta of TRADES to the next one."""

    def found(results: Any) -> Found:
        line = [
            column(results, member, name)
            for member, held in results["members"].items()
            if (held.get("sweep") or {}).get("line") == "TRADES"
        ]
        return by_seed(np.min(sign * np.diff(line, axis=0), axis=0))

    return found


def area(first: str, second: str) -> Callable[[Any], Found]:
    """How much more area above (90 %, 0 %) clean and robust one front dominates than another."""

    def found(results: Any) -> Found:
        ((_, _, comparison),) = compared_fronts(results, [(first, second)])
        whole = 1 - results["fronts"]["reference"][0]
        low, high = comparison.area_low / whole, comparison.area_high / whole
        return Found(comparison.area / whole, low, high, comparison.seeds)

    return found


def line_of(results: Any, name: str) -> dict[str, np.ndarray]:
    """A mixture of `digits_mixing.json`, or one of its bases."""
    (line,) = (line for line in results["lines"] if line["name"] == name)
    return {key: np.array(value) for key, value in line.items() if key != "name"}


def height(name: str) -> Callable[[Any], Found]:
    """How far a mixture lies above the segment between its bases, under adaptive attacks."""
    return lambda results: by_seed(line_of(results, name)["heights"])


def kept(results: Any) -> Found:
    """The share of its bases' difference in clean accuracy that the mixing network keeps, - 1/2."""
    accurate, robust, mixed = (line_of(results, n)["clean"] for n in ("std", "rob", "network"))
    return by_seed((mixed - robust) / (accurate - robust) - 0.5)


METHODS, SPATIAL, MIXING = "digits_methods.json", "digits_spatial.json", "digits_mixing.json"
FRONTS = "digits_fronts.json"
AUTOATTACK, PGD = "AutoAttack linf 0.15", "pgd (20)"
GRID = "spatial grid (30 degrees, 0 px)"

TABLES: dict[str, tuple[Claim, ...]] = {
    "trades": (
        Claim(
            "beta trades clean accuracy for robust accuracy",
            "clean, TRADES beta 0.25 minus beta 4",
            FRONTS,
            between("TRADES beta 0.25", "TRADES beta 4", "clean"),
        ),
        Claim(
            "and a larger beta gives more robust accuracy",
            "worst PGD, TRADES beta 4 minus beta 0.25",
            FRONTS,
            between("TRADES beta 4", "TRADES beta 0.25", "worst PGD"),
        ),
        Claim(
            "clean accuracy falls with every step of beta",
            "smallest fall of clean accuracy",
            FRONTS,
            smallest_step("clean", -1),
        ),
        Claim(
            "robust accuracy rises with every step of beta",
            "smallest rise of worst PGD",
            FRONTS,
            smallest_step("worst PGD", 1),
        ),
        Claim(
            "above PGD-AT at equal clean accuracy",
            "area of TRADES minus that of PGD-AT",
            FRONTS,
            area("TRADES", "PGD-AT"),
        ),
    ),
    "score": (
        Claim(
            "the squared error instead of KL raises clean accuracy",
            "clean, SCORE (beta 4) minus TRADES (beta 6)",
            METHODS,
            between("SCORE", "TRADES", "clean"),
        ),
        Claim(
            "without a loss under AutoAttack",
            "AutoAttack, SCORE (beta 4) minus TRADES (beta 6)",
            METHODS,
            between("SCORE", "TRADES", AUTOATTACK),
        ),
        Claim(
            "its front lies above that of TRADES",
            "area of SCORE minus that of TRADES",
            FRONTS,
            area("SCORE", "TRADES"),
        ),
    ),
    "weights": (
        Claim(
            "GAIRAT raises accuracy under PGD",
            "PGD on cross-entropy, GAIRAT minus PGD-AT",
            METHODS,
            between("GAIRAT", "PGD-AT", PGD),
        ),
        Claim(
            "and lowers it under AutoAttack (a later finding)",
            "AutoAttack, PGD-AT minus GAIRAT",
            METHODS,
            between("PGD-AT", "GAIRAT", AUTOATTACK),
        ),
        Claim(
            "so PGD overestimates it more than PGD-AT",
            "loss from PGD to AutoAttack, GAIRAT minus PGD-AT",
            METHODS,
            gap,
        ),
        Claim(
            "FAT raises clean accuracy",
            "clean, FAT minus PGD-AT",
            METHODS,
            between("FAT", "PGD-AT", "clean"),
        ),
        Claim(
            "MART raises robust accuracy",
            "AutoAttack, MART minus PGD-AT",
            METHODS,
            between("MART", "PGD-AT", AUTOATTACK),
        ),
    ),
    "spatial": (
        Claim(
            "(a) training on rotations costs robustness in l_inf",
            "worst PGD, CNN at eps 0.15: no rotations minus up to 90 degrees",
            SPATIAL,
            between("CNN rotation 0 eps 0.15", "CNN rotation 90 eps 0.15", "worst PGD"),
        ),
        Claim(
            "the same, p4 CNN",
            "worst PGD, p4CNN at eps 0.15: no rotations minus up to 90 degrees",
            SPATIAL,
            between("p4CNN rotation 0 eps 0.15", "p4CNN rotation 90 eps 0.15", "worst PGD"),
        ),
        Claim(
            "(b) adversarial training costs robustness to rotations",
            "worst rotation, CNN on 30 degrees: eps 0 minus eps 0.15",
            SPATIAL,
            between("CNN rotation 30 eps 0", "CNN rotation 30 eps 0.15", GRID),
        ),
        Claim(
            "the same, p4 CNN",
            "worst rotation, p4CNN on 30 degrees: eps 0 minus eps 0.15",
            SPATIAL,
            between("p4CNN rotation 30 eps 0", "p4CNN rotation 30 eps 0.15", GRID),
        ),
        Claim(
            "CuSP withstands rotations better than training on both at once",
            "worst rotation, CNN CuSP minus CNN on 30 degrees and eps 0.15",
            SPATIAL,
            between("CNN CuSP", "CNN rotation 30 eps 0.15", GRID),
        ),
        Claim(
            "and l_inf attacks too",
            "worst PGD, CNN CuSP minus CNN on 30 degrees and eps 0.15",
            SPATIAL,
            between("CNN CuSP", "CNN rotation 30 eps 0.15", "worst PGD"),
        ),
    ),
    "mixing": (
        Claim(
            "Adaptive Smoothing lies above the segment between its bases, adaptively attacked",
            "robust accuracy, mixing network minus segment",
            MIXING,
            height("network"),
        ),
        Claim(
            "it keeps most of the accurate base's clean accuracy",
            "kept share of the bases' difference, minus a half",
            MIXING,
            kept,
        ),
        Claim(
            "a constant alpha does too (0.8)",
            "robust accuracy, alpha 0.8 minus segment",
            MIXING,
            height("alpha 0.8"),
        ),
        Claim(
            "MixedNUTS lies above the segment without training",
            "robust accuracy, MixedNUTS minus segment",
            MIXING,
            height("nuts"),
        ),
    ),
}


def claims_table(name: str) -> str:
    """A table of claims.

    Args:
      name: of `TABLES`.

    Returns:
      Markdown, without a line break at its end.
    """
    lines = [HEAD, ("---",) * len(HEAD)]
    for claim in TABLES[name]:
        found = claim.found(json.loads((RESULTS / claim.file).read_text()))
        value, low, high = (f"{100 * number:+.1f}" for number in found[:3])
        link = f"[{claim.file}](../experiments/results/{claim.file})"
        ends = f"{low} to {high}"
        seeds = str(found.seeds)
        lines.append((claim.text, claim.difference, value, ends, seeds, found.verdict, link))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def with_tables(page: str) -> str:
    """A page with the table of every mark written anew."""
    for name in TABLES:
        mark = MARK.format(name)
        before, found, after = page.partition(mark + "\n\n")
        if not found:
            raise ValueError(f"{PAGE} has no line {mark}")
        after = re.sub(r"\A(?:\|.*\n)*\n*", "", after)
        page = f"{before}{found}{claims_table(name)}\n\n{after}"
    return page


def main() -> None:
    """Prints the tables, or writes them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/claims.md")
    if parser.parse_args().write:
        PAGE.write_text(with_tables(PAGE.read_text()))
        return
    for name in TABLES:
        print(f"{MARK.format(name)}\n\n{claims_table(name)}\n")


if __name__ == "__main__":
    main()

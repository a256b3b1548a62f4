"""What compilation costs: stages, sizes and runs of programs in several forms, side by side."""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks.compile_case import Case, checked

# Of the mean loss of an attack, or of a step's loss and update. All forms compute the same up to
# rounding, but an attack takes the sign of a gradient, and where that is nearly zero rounding
# turns it.
TOLERANCE = 0.02
LOOPS = ("rolled", "unrolled")
CLONE = pathlib.Path(__file__).parents[1]


# For a TPU: what AutoAttack and PGD training loop over, on real networks.
_PGD = Case("pgd", steps=10, depth=28, width=10, batch_size=512)
_APGD = Case("apgd", steps=100, model="preact_resnet18", width=64, batch_size=512)
TPU_CASES = tuple(case._replace(form=form) for case in (_PGD, _APGD) for form in LOOPS)


class Spread(NamedTuple):
    """A measurement over the repeats."""

    median: float
    low: float
    high: float


class CompileRow(NamedTuple):
    """One case.

    Attributes:
      case: the program and its form.
      figures: by name a `Spread`. With nothing compiled before: `trace_seconds`, `lower_seconds`,
        `compile_seconds`, `total_seconds` of the three, `total_cpu_seconds` of the process in them,
        which other work on the machine changes less; `first_seconds` of the first run,
        `steady_seconds` and `steady_cpu_seconds` of later ones; `instructions` of the optimised
        program and its `temporary_bytes`. In a second process `warm_*`, the same stages with the
        program in the persistent cache, and `exported_load_seconds`, `exported_compile_seconds`
        and `exported_bytes` of one written by `jax.export`. For a TPU also `bound_seconds`, which
        no run can be faster than. What was not measured is not there.
      difference: the largest relative difference of the results from those of the rolled form of
        the same case; `None` where nothing ran.
      problem: why there are no figures; else empty.
      repeats: how many the figures are of.
    """

    case: Case
    figures: dict[str, Spread]
    difference: float | None
    problem: str = ""
    repeats: int = 0


def variants(program: str, *, eager_steps: int = 2, steps: int = 10, **settings: Any) -> list[Case]:
    """The forms of a program that are compared.

    Args:
      program: one of `PROGRAMS`.
      eager_steps: of the attack in the eager form, which would take too long with more; the rolled
        form with as many stands beside it.
      steps: of the attack in all other forms.
      **settings: other fields of `Case`.

    Returns:
      The cases.

    Raises:
      ValueError: if one cannot be built.
    """
    base = Case(program, steps=steps, **settings)
    forms = ["rolled", "unrolled", "scanned", "stock"]
    if program == "autoattack":
        forms.remove("unrolled")
    if base.model != "wide_resnet" or base.depth < 22:  # a loop over one block is none
        forms.remove("scanned")
    cases = [base._replace(form=form) for form in forms]
    if program != "autoattack":
        few = base._replace(steps=eager_steps)
        cases += [case for case in (few, few._replace(form="eager")) if case not in cases]
    return [checked(case) for case in cases]


def curves(
    steps: Sequence[int], depths: Sequence[int], *, attack_steps: int = 10, **settings: Any
) -> list[Case]:
    """PGD over its number of steps, rolled and unrolled, and over the depth, scanned or not.

    Args:
      steps: of the attack, on the network of the lowest depth.
      depths: of the WideResNet, with `attack_steps`.
      attack_steps: of the attack for the depths.
      **settings: other fields of `Case`.

    Returns:
      The cases.

    Raises:
      ValueError: if one cannot be built.
    """
    first = Case("pgd", depth=min(depths), **settings)
    cases = [first._replace(steps=n, form=form) for n in steps for form in LOOPS]
    cases += [
        first._replace(depth=depth, steps=attack_steps, form=form)
        for depth in depths
        for form in ("rolled", "scanned")
    ]
    return [checked(case) for case in dict.fromkeys(cases)]


def compile_table(
    cases: Sequence[Case],
    *,
    repeats: int = 3,
    runs: int = 5,
    again: Collection[Case] = (),
    topology: str | None = None,
    limit_seconds: float = 900.0,
    advance: Callable[[str], None] = lambda case: None,
) -> list[CompileRow]:
    """Measures each case in fresh processes, all cases in turn, several times.

    Ctrl-C ends it early: the rows are then of the repeats that were complete.

    Args:
      cases: what is measured.
      repeats: of all cases; each takes its turn before the next repeat.
      runs: of a compiled program in one process, after the first.
      again: the cases of which a second process is measured too, with a full cache and with the
        exported program.
      topology: compile for a TPU slice instead, such as "v5e:2x2"; nothing runs.
      limit_seconds: for one process; a case that takes longer gets a row that says so.
      advance: told what is measured next, once per process.

    Returns:
      A row per case.

    Raises:
      ValueError: if a case cannot be built.
      AssertionError: if the forms of a program compute different things.
      KeyboardInterrupt: if it is ended before the first repeat is complete.
    """
    cases = [checked(case) for case in dict.fromkeys(cases)]
    samples: dict[Case, list[dict[str, Any]]] = {case: [] for case in cases}
    problems: dict[Case, str] = {}
    for repeat in range(repeats):
        new: dict[Case, list[dict[str, Any]]] = {}
        try:
            for case in (case for case in cases if case not in problems):
                second = case in again
                found = _processes(case, runs, second, topology, limit_seconds, advance)
                new[case] = list(found)
                if "problem" in new[case][-1]:
                    problems[case] = new[case][-1]["problem"]
        except KeyboardInterrupt:
            if not repeat:
                raise
            break
        for case, sample in new.items():
            samples[case] += sample
    rows = [_row(case, samples, problems.get(case, "")) for case in cases]
    for row in rows:
        assert row.difference is None or row.difference <= TOLERANCE, (
            f"{row.case}: its results differ from the rolled form's by {row.difference:.3g}, "
            f"more than {TOLERANCE}"
        )
    return rows


def _processes(
    case: Case,
    runs: int,
    again: bool,
    topology: str | None,
    limit_seconds: float,
    advance: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """What the processes of one repeat found; none after one that failed."""
    first = "cold" if topology is None else "tpu"
    with tempfile.TemporaryDirectory(prefix="jaxrobust-compile-") as folder:
        task = {
            "case": case._asdict(),
            "folder": folder,
            "runs": runs,
            "again": again,
            "topology": topology,
        }
        for mode in (first, "again") if again else (first,):
            advance(f"{case.program}, {case.form}")
            found = _measured({**task, "mode": mode}, limit_seconds)
            yield found
            if "problem" in found:
                return


def _measured(task: dict[str, Any], limit_seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.compile_worker"]
    try:
        done = subprocess.run(
            command,
            cwd=CLONE,
            input=json.dumps(task),
            capture_output=True,
            text=True,
            timeout=limit_seconds,
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"not finished in {limit_seconds / 60:g} minutes"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
        return {"problem": lines[-1][:300]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _row(case: Case, samples: dict[Case, list[dict[str, Any]]], problem: str) -> CompileRow:
    found = [] if problem else samples[case]
    names = dict.fromkeys(name for sample in found for name in sample if name != "values")
    figures = {}
    for name in names:
        values = [sample[name] for sample in found if name in sample]
        figures[name] = Spread(statistics.median(values), min(values), max(values))
    reference = samples.get(case._replace(form="rolled"), [])
    expected = next((sample["values"] for sample in reference if "values" in sample), None)
    differences = [
        abs(value - wanted) / max(abs(wanted), 1e-6)
        for sample in found
        if "values" in sample and expected is not None
        for value, wanted in zip(sample["values"], expected, strict=True)
    ]
    counted = len([sample for sample in found if not any(n.startswith("warm_") for n in sample)])
    return CompileRow(case, figures, max(differences, default=None), problem, counted)


def rows_as_json(rows: Sequence[CompileRow]) -> list[dict[str, Any]]:
    """Rows as plain JSON types."""
    return [
        {
            **row.case._asdict(),
            "figures": {name: spread._asdict() for name, spread in row.figures.items()},
            "difference": row.difference,
            "problem": row.problem,
            "repeats": row.repeats,
        }
        for row in rows
    ]

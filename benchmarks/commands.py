"""What the commands of the benchmarks do: measure, print a table, write JSON."""

import contextlib
import importlib.util
import pathlib
import tempfile
from typing import Any

from benchmarks.audit_table import audit_table
from benchmarks.bound_table import bound_table, limit_table
from benchmarks.convolution_table import convolution_table
from benchmarks.distances import distances_table
from benchmarks.fast_verdict import fast_verdict_table
from benchmarks.fault_kinds import UNWANTED
from benchmarks.faults import campaign as faults_tried
from benchmarks.form_tables import loop_table, transform_table
from benchmarks.fuzz import campaign as fuzzed
from benchmarks.minimum_norm_peers import minimum_norm_peers as minimum_norm_table
from benchmarks.mutants import campaign as mutants_tried
from benchmarks.peer_table import peer_table
from benchmarks.pytorch_passes import torch_table
from benchmarks.pytorch_step import torch_step_table
from jaxrobust.bench import machine
from jaxrobust.cli_options import echo
from jaxrobust.commands import keep_rows, show_rows


def peers(path: pathlib.Path | None, **settings: int) -> None:
    """Times PGD of this and of other libraries that are installed.

    Args:
      path: the JSON file, or `None`.
      **settings: of `peer_table`.
    """
    host = machine()
    rows = [row._asdict() for row in peer_table(**settings)]
    columns = ("library", "version", "seconds", "ratio", "robust", "image_difference", "problem")
    show_rows("PGD of several libraries", rows, columns)
    keep_rows(path, "peers", settings, host, rows=rows)


def pytorch(path: pathlib.Path | None, *, steps: int, **settings: int) -> None:
    """Times the passes of a network and the train step of TRADES in both libraries.

    Args:
      path: the JSON file, or `None`.
      steps: of the attack.
      **settings: of `torch_table`.

    Raises:
      ValueError: if PyTorch is not installed.
    """
    host = machine()
    passes = [row._asdict() for row in torch_table(**settings)]
    columns = ("program", "width", "seconds", "torch_seconds", "ratio", "difference")
    show_rows("beside PyTorch, channels_last", passes, columns)
    step = [row._asdict() for row in torch_step_table(steps=steps, **settings)]
    columns = ("form", "seconds", "ratio", "compile_seconds", "loss_difference", "problem")
    show_rows("the step of TRADES beside PyTorch", step, columns)
    keep_rows(path, "pytorch", {**settings, "steps": steps}, host, passes=passes, step=step)


def forms(path: pathlib.Path | None, *, steps: int, **settings: Any) -> None:
    """Times the attack's loop rolled and unrolled, and steps with a random transform.

    Args:
      path: the JSON file, or `None`.
      steps: of the attack; its compilation is also timed with four times as many.
      **settings: of `loop_table` and `transform_table`.
    """
    host = machine()
    loops = [row._asdict() for row in loop_table(steps=(steps, 4 * steps), **settings)]
    shown = ("form", "steps", "compile_seconds", "seconds", "loss")
    show_rows("the attack's loop, rolled and unrolled", loops, shown)
    moved = [row._asdict() for row in transform_table(steps=steps, **settings)]
    columns = ("method", "seconds", "plain_seconds", "share")
    show_rows("a step of PGD-AT with random rotations and shifts", moved, columns)
    keep_rows(path, "forms", {**settings, "steps": steps}, host, loops=loops, transforms=moved)


def convolutions(path: pathlib.Path | None, **settings: Any) -> None:
    """Times passes and gradient steps in loops with stock and with fast convolutions.

    Args:
      path: the JSON file, or `None`.
      **settings: of `convolution_table`.
    """
    host = machine()
    rows = [row._asdict() | {"speedup": row.speedup} for row in convolution_table(**settings)]
    columns = ("name", "images", "gradient", "stock_ms", "fast_ms", "speedup")
    show_rows("convolutions inside a loop, per step", rows, columns)
    keep_rows(path, "convolutions", settings, host, rows=rows)


def fast_verdict(path: pathlib.Path | None, **settings: Any) -> None:
    """Runs the fast verdict and AutoAttack on the same networks.

    Args:
      path: the JSON file, or `None`.
      **settings: of `fast_verdict_table`.

    Raises:
      ValueError: if a file holds no network.
    """
    host = machine()
    rows = [row._asdict() for row in fast_verdict_table(**settings)]
    named = ("model", "norm", "seed")
    counts = ("points", "clean", "robust", "autoattack", "reference")
    columns = (*named, *counts, "share", "seconds", "autoattack_seconds", "holds")
    show_rows("the fast verdict beside the standard AutoAttack", rows, columns)
    stages = [{k: row[k] for k in named} | stage for row in rows for stage in row["stages"]]
    costs = ("forwards_per_point", "backwards_per_point", "seconds")
    show_rows("its stages", stages, (*named, "stage", "robust", *costs))
    keep_rows(path, "fast verdict", settings, host, rows=rows)


def audit(path: pathlib.Path | None, **settings: Any) -> None:
    """Attacks digits networks with AutoAttack, and audits the points that it leaves.

    Args:
      path: the JSON file, or `None`.
      **settings: of `audit_table`.

    Raises:
      ValueError: if the name of a defence is unknown.
    """
    host = machine()
    rows = [row._asdict() for row in audit_table(**settings)]
    counts = ("points", "clean", "attack", "before", "after")
    columns = ("network", "eps", *counts, "verdict", "fell", "attack_seconds", "seconds")
    show_rows("the audit of what an attack leaves", rows, columns)
    keep_rows(path, "audit", settings, host, rows=rows)


def distances(path: pathlib.Path | None, **settings: Any) -> None:
    """Runs ensembles of minimum-norm attacks on the digits networks.

    Args:
      path: the JSON file, or `None`.
      **settings: of `distances_table`.
    """
    host = machine()
    rows = [row._asdict() for row in distances_table(**settings)]
    named = ("model", "norm", "attack", "found", "median", "mean")
    reference = ("reference_median", "reference_mean")
    costs = ("forwards_per_point", "backwards_per_point", "seconds")
    columns = (*named, *reference, "optimality", "optimality_exact_area", *costs)
    show_rows("distances under minimum-norm attacks", rows, columns)
    keep_rows(path, "distances", settings, host, rows=rows)


def minimum_norm_peers(path: pathlib.Path | None, **settings: Any) -> None:
    """Times minimum-norm attacks of this library and of adversarial-library, if it is installed.

    Args:
      path: the JSON file, or `None`.
      **settings: of the table.
    """
    host = machine()
    rows = [row._asdict() for row in minimum_norm_table(**settings)]
    ours, theirs = ("found", "median", "seconds"), ("peer_found", "peer_median", "peer_seconds")
    columns = ("attack", "norm", *ours, *theirs, "problem")
    show_rows("minimum-norm attacks beside adversarial-library's", rows, columns)
    keep_rows(path, "minimum-norm peers", settings, host, rows=rows)


def faults(path: pathlib.Path | None, *, folder: pathlib.Path | None, **settings: Any) -> None:
    """Tries faults on the command line; rows are kept after every trial.

    Args:
      path: the JSON file, or `None`.
      folder: new folder for the runs; `None` for a temporary one.
      **settings: of `campaign`.

    Raises:
      ValueError: if the folder is not empty.
    """
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise ValueError(f"--folder must be a new or empty folder, got {folder}")
    host, rows = machine(), []
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for row in faults_tried(folder, **settings):
            rows.append(row._asdict())
            echo(
                " ".join(f"{row.command}: {row.kind} {row.file} {row.place}: {row.outcome}".split())
            )
            if row.outcome in UNWANTED:
                echo(f"  {row.message}")
            keep_rows(path, "faults", settings, host, rows=rows)
    failed = sum(row["outcome"] in UNWANTED for row in rows)
    echo(f"{len(rows)} trials, {failed} with an unwanted outcome")


def fuzz(path: pathlib.Path | None, **settings: Any) -> None:
    """Fuzzes the readers of foreign files; rows are kept after each of them.

    Args:
      path: the JSON file, or `None`.
      **settings: of `fuzz.campaign`.

    Raises:
      ValueError: if atheris is not installed.
    """
    if importlib.util.find_spec("atheris") is None:
        raise ValueError("the fuzzer needs atheris (Linux, Python below 3.14): pip install atheris")
    host, rows = machine(), []
    for row in fuzzed(**settings):
        rows.append(row._asdict())
        told = row.problem or "nothing found"
        echo(f"{row.reader}: {row.files:,} files, {row.edges:,} edges: {told}")
        keep_rows(path, "fuzz", settings, host, rows=rows)


def mutants(path: pathlib.Path | None, **settings: Any) -> None:
    """Tries small wrong changes on the tests; rows are kept after every trial.

    Args:
      path: the JSON file, or `None`.
      **settings: of `mutants.campaign`.
    """
    host, rows = machine(), []
    for row in mutants_tried(**settings):
        rows.append(row._asdict())
        echo(f"{row.outcome:8} {row.file}:{row.line}: {row.old!r} becomes {row.new!r}")
        keep_rows(path, "mutants", settings, host, rows=rows)
    caught = sum(row["outcome"] != "survived" for row in rows)
    echo(f"{caught} of {len(rows)} changes are caught")


def bounds(path: pathlib.Path | None, *, limits: bool, **settings: Any) -> None:
    """Times certified bounds, and finds the sizes of network at which they prove nothing.

    Args:
      path: the JSON file, or `None`.
      limits: whether also the radii that are certified by depth and width.
      **settings: of `bound_table`.
    """
    host = machine()
    rows = [row._asdict() for row in bound_table(**settings)]
    columns = ("network", "values", "method", "batch", "seconds", "reference_seconds")
    show_rows("certified bounds, an image; the reference was measured elsewhere", rows, columns)
    found = [row._asdict() for row in limit_table()] if limits else []
    if found:
        show_rows(
            "certified radii of random networks", found, ("network", "method", "radius", "attacked")
        )
    keep_rows(path, "bounds", {**settings, "limits": limits}, host, rows=rows, limits=found)

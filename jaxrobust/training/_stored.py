"""Checkpoints as they lie in a folder: found, scored and read without changing anything."""

import contextlib
import gc
import json
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from jaxrobust.reasons import first_line

METRIC = "validation_robust_accuracy"
ONCE_HELD = "frozen"


class CheckpointError(Exception):
    """No checkpoint could be restored, or none could be written."""


def stored_steps(folder: epath.Path) -> list[int]:
    """The steps of the complete checkpoints in a folder, ascending; other entries do not count."""
    if not folder.is_dir():
        return []
    return sorted(found.step for found in ocp.path.step.standard_name_format().find_all(folder))


def stored_score(folder: epath.Path, step: int) -> float | None:
    """The validation score of a checkpoint; `None` where it was not validated.

    Raises:
      ValueError: if the score's file is damaged.
    """
    path = score_file(folder, step)
    if not path.is_file():
        return None
    try:
        score = json.loads(path.read_bytes())[METRIC]
        if not (isinstance(score, int | float) and math.isfinite(score)):
            raise ValueError(f"{METRIC} is {score!r}")
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(first_line(error)) from error
    return float(score)


def score_file(folder: epath.Path, step: int) -> epath.Path:
    """Where Orbax keeps the metrics of a checkpoint."""
    return folder / str(step) / "metrics" / "metrics"


def restored(folder: epath.Path, step: int, abstract: Any) -> Any:
    """The state of a checkpoint, as the shapes and placement of `abstract`.

    Raises:
      Exception: of many kinds, if the checkpoint cannot be read.
    """
    path = folder / str(step) / "default"
    with ocp.PyTreeCheckpointer() as reader:
        held = reader.metadata(path).item_metadata
        arguments = ocp.args.PyTreeRestore(
            abstract,
            ocp.checkpoint_utils.construct_restore_args(abstract),
            # Once a state held the weights of a mixed classifier's bases, or `None`.
            partial_restore=ONCE_HELD in getattr(held, "tree", held),
        )
        state = reader.restore(path, arguments)
    found = int(getattr(state, "step", step))
    if found != step:
        raise ValueError(f"it holds step {found}")
    return state


def restore_first(
    folder: epath.Path, steps: list[int], target: Any, *, warn: Callable[[str], None]
) -> tuple[int, Any]:
    """The first of several checkpoints that can be read.

    Args:
      folder: of the checkpoints.
      steps: to try, in order.
      target: a state whose shapes and placement the restored one gets.
      warn: told one line about each checkpoint that cannot be read.

    Returns:
      Its step and its state.

    Raises:
      CheckpointError: if there is none.
    """
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), target
    )
    for step in steps:
        with _quiet_failures():
            try:
                return step, restored(folder, step, abstract)
            except Exception as error:  # Orbax and TensorStore raise many kinds
                warn(
                    f"checkpoint {folder / str(step)} cannot be read "
                    f"({first_line(error, longest=120)}); trying another one"
                )
            gc.collect()  # here and now, while nothing is printed
    tried = f"; tried steps {', '.join(map(str, steps))}" if steps else ""
    raise CheckpointError(f"no readable checkpoint in {folder}{tried}")


@contextlib.contextmanager
def _quiet_failures() -> Iterator[None]:
    """Keeps Orbax from printing tracebacks of reads that were under way when another one failed."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: None
    try:
        yield
    finally:
        sys.unraisablehook = before

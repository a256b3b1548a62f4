"""Checkpoints of a run: asynchronous, the last few and the best, restored past damage."""

import contextlib
import gc
import hashlib
import json
import logging
import math
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from jaxrobust.digests import digest_of, digest_of_files
from jaxrobust.files import parse_json
from jaxrobust.processes import is_first
from jaxrobust.reasons import first_line
from jaxrobust.storage import in_bucket, write_whole

METRIC = "validation_robust_accuracy"
ONCE_HELD = "frozen"
METADATA = "_CHECKPOINT_METADATA"  # Orbax's file in a checkpoint, which has our entries:
DIGESTS, SUMS, SCORES = "sha256", "sums", "scores"
_FORMAT = ocp.path.step.standard_name_format()


class CheckpointError(Exception):
    """No checkpoint could be restored, or none could be written."""


class Checkpoints:
    """The checkpoints of one run.

    Writing is asynchronous: `save` copies the state and returns. A checkpoint appears under
    its final name only when complete, so a crash leaves the earlier ones. Reading changes nothing
    in the folder, which may be read-only. The first `save` moves checkpoints after the restored one
    to `damaged-STEP`, or `later-STEP` if they were not tried, beside the others, because Orbax
    saves only steps after those that it sees.

    Args:
      folder: where they live, on a disk or in a bucket; made when something is saved.
      keep: how many of the latest are kept, besides the best by validation.
      warn: told one line about each checkpoint, or score of one, that cannot be read.
    """

    def __init__(
        self,
        folder: epath.Path | pathlib.Path,
        *,
        keep: int = 2,
        warn: Callable[[str], None] = print,
    ) -> None:
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells of every file otherwise
        self.folder = epath.Path(folder if in_bucket(folder) else folder.absolute())
        self._keep, self._warn = keep, warn
        self._unreadable: set[int] = set()
        self._later: list[int] = []
        self._writer: ocp.CheckpointManager | None = None

    def save(
        self,
        step: int,
        state: Any,
        *,
        validation: float | None = None,
        sums: Mapping[str, float] | None = None,
    ) -> None:
        """Starts writing; a step that is already there is left as it is.

        Args:
          step: of the state.
          state: a pytree of arrays.
          validation: the accuracy by which the best is chosen; `None` where it was not validated.
          sums: of the metrics of an unfinished epoch.

        Raises:
          CheckpointError: if the folder holds a later checkpoint.
        """
        writer = self._opened()
        if step in writer.all_steps():
            return
        metrics = None if validation is None else {METRIC: validation}
        more: dict[str, Any] | None = None
        if is_first():  # who writes them
            more = {DIGESTS: content_digests(state), SUMS: dict(sums or {}), SCORES: metrics or {}}
        if not writer.save(
            step, args=ocp.args.StandardSave(state), metrics=metrics, custom_metadata=more
        ):
            raise CheckpointError(
                f"step {step} cannot be saved: {self.folder} holds the later step "
                f"{writer.latest_step()}"
            )

    def steps(self) -> list[int]:
        """The complete checkpoints' steps, ascending."""
        return stored_steps(self.folder)

    def sums(self, step: int) -> dict[str, float]:
        """The sums that were saved with a step; none where their file is damaged."""
        return _entry(self.folder, step, SUMS)

    def digest(self, step: int) -> str:
        """Of the files that hold the state of a step; its score is no part of them."""
        return digest_of_files(pathlib.Path(self.folder / str(step) / "default"))

    def best_step(self) -> int | None:
        """The step with the highest validation accuracy (the later of equals); else the last."""
        steps = self.steps()
        scores = {step: score for step in steps if (score := self._score(step)) is not None}
        if not scores:
            return steps[-1] if steps else None
        return max(scores, key=lambda step: (scores[step], step))

    def best_score(self) -> float | None:
        """The highest validation accuracy of a checkpoint; `None` where none was validated."""
        scores = [score for step in self.steps() if (score := self._score(step)) is not None]
        return max(scores, default=None)

    def restore_last(self, target: Any) -> tuple[int, Any]:
        """The latest checkpoint that can be read, as the shapes and placement of `target`.

        Raises:
          CheckpointError: if there is none.
        """
        return self.restore(self.steps()[::-1], target)

    def restore_best(self, target: Any) -> tuple[int, Any]:
        """The best checkpoint; where it is damaged, the latest that can be read.

        Raises:
          CheckpointError: if there is none.
        """
        best = self.best_step()
        others = [step for step in self.steps()[::-1] if step != best]
        return self.restore(others if best is None else [best, *others], target)

    def restore(self, steps: Sequence[int], target: Any) -> tuple[int, Any]:
        """The first of some checkpoints that can be read; saving then goes on after it.

        Raises:
          CheckpointError: if there is none.
        """
        step, state = _restore_first(self.folder, steps, target, warn=self._warn)
        self._unreadable |= set(steps[: steps.index(step)])
        self._later = [other for other in self.steps() if other > step]
        return step, state

    def wait(self) -> None:
        """Until everything started is on disk."""
        if self._writer is not None:
            self._writer.wait_until_finished()

    def close(self) -> None:
        """Finishes writing and releases the folder."""
        if self._writer is not None:
            self._writer.wait_until_finished()
            self._writer.close()

    def _score(self, step: int) -> float | None:
        """The validation score of a step; `None`, after a warning, where it is damaged."""
        try:
            return stored_score(self.folder, step)
        except ValueError as error:
            self._warn(
                f"the validation score of checkpoint {self.folder / str(step)} cannot be read "
                f"({error}); choosing the best of the others"
            )
            return None

    def _opened(self) -> ocp.CheckpointManager:
        """Orbax's manager, which reads the score of every step that it finds."""
        if self._writer is not None:
            return self._writer
        if is_first():
            self._set_aside()
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[METRIC],
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        latest = policies.LatestN(n=self._keep)
        self._writer = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy([latest, best]),
                best_fn=lambda metrics: metrics[METRIC],
                best_mode="max",
                create=True,
            ),
        )
        return self._writer

    def _set_aside(self) -> None:
        """Moves what stands after the restored checkpoint, and mends what Orbax would refuse."""
        for step in sorted({*self._later, *self._unreadable}):
            kind = "damaged" if step in self._unreadable else "later"
            free = self.folder / f"{kind}-{step}"
            while free.exists():
                free = free.with_name(f"{free.name}-again")
            (self.folder / str(step)).rename(free)
        self._mend_metadata()
        for step in self.steps():
            path = score_file(self.folder, step)
            try:
                score = stored_score(self.folder, step)
            except ValueError:
                path.unlink()
                continue
            if score is not None and _score_in(path) != score:  # Orbax reads this file alone
                path.parent.mkdir(exist_ok=True)
                write_whole(path, json.dumps({METRIC: score}))

    def _mend_metadata(self) -> None:
        """Leaves our own entries in metadata that Orbax cannot read: it would save nothing more."""
        for found in _FORMAT.find_all(self.folder):
            path = self.folder / str(found.step) / METADATA
            try:
                found.commit_timestamp  # noqa: B018, reads the file as Orbax's manager does
            except (ValueError, TypeError, LookupError, OverflowError) as error:
                self._warn(f"{path} is damaged ({first_line(error)}); kept what can be read of it")
                entries = {n: _entry(self.folder, found.step, n) for n in (DIGESTS, SUMS, SCORES)}
                write_whole(path, json.dumps({"custom_metadata": entries}))


def stored_steps(folder: epath.Path) -> list[int]:
    """The steps of the complete checkpoints in a folder, ascending; other entries do not count."""
    if not folder.is_dir():
        return []
    return sorted(found.step for found in _FORMAT.find_all(folder))


def stored_score(folder: epath.Path, step: int) -> float | None:
    """The validation score of a checkpoint; `None` where it was not validated.

    It is stored twice, so that a damaged file does not make another checkpoint the best.

    Raises:
      ValueError: if it is damaged.
    """
    path, copy = score_file(folder, step), _entry(folder, step, SCORES).get(METRIC)
    score = _score_in(path)
    if score is None and copy is None and path.is_file():
        raise ValueError(f"{path} holds no finite {METRIC}")
    if None not in (score, copy) and score != copy:
        raise ValueError(f"{METRIC} is {score} in {path}, but {copy} in {METADATA}")
    return copy if score is None else score


def _score_in(path: epath.Path) -> float | None:
    """The score in a file; `None` where it is missing or damaged."""
    try:
        score = parse_json(path.read_bytes())[METRIC]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    finite = isinstance(score, int | float) and math.isfinite(score)
    return float(score) if finite else None


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
        if held is None:
            raise ValueError("the list of its arrays is missing or damaged")
        arguments = ocp.args.PyTreeRestore(
            abstract,
            ocp.checkpoint_utils.construct_restore_args(abstract),
            partial_restore=_holds_more(getattr(held, "tree", held), abstract),
        )
        state = reader.restore(path, arguments)
    found = int(getattr(state, "step", step))
    if found != step:
        raise ValueError(f"it holds step {found}")
    saved, read = _entry(folder, step, DIGESTS), content_digests(state)
    changed = [part for part in read if saved.get(part, read[part]) != read[part]]
    if changed:
        raise ValueError(f"its {', '.join(changed)} changed on the disk")
    return state


def content_digests(state: Any) -> dict[str, str]:
    """SHA-256 of each part of a state, because files of arrays have no checksums of their own.

    Arrays that are split over processes are left out.
    """
    parts: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = getattr(path[0], "name", getattr(path[0], "key", path[0])) if path else "state"
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            if not leaf.is_fully_replicated:  # no process has all of it
                continue
            leaf = leaf.addressable_data(0)
        parts.setdefault(str(name), hashlib.sha256()).update(digest_of(leaf).encode())
    return {name: found.hexdigest() for name, found in parts.items()}


def _entry(folder: epath.Path, step: int, name: str) -> dict[str, Any]:
    """What was saved beside a state; empty where it is damaged, or of an earlier version."""
    try:
        return dict(
            parse_json((folder / str(step) / METADATA).read_bytes())["custom_metadata"][name]
        )
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _holds_more(held: Any, wanted: Any) -> bool:
    """Whether a checkpoint has, or lacks, what is not to be restored from it.

    Once a state held the weights of a mixed classifier's bases, or `None`, and no objective. A
    network that is only evaluated needs no objective.
    """
    unasked = getattr(wanted, "objective", ...) is None
    return ONCE_HELD in held or (unasked and held.get("objective", ...) not in (None, {}))


def _restore_first(
    folder: epath.Path, steps: Sequence[int], target: Any, *, warn: Callable[[str], None]
) -> tuple[int, Any]:
    """The first of several checkpoints that can be read.

    Args:
      folder: of the checkpoints.
      steps: to try, in order.
      target: a state whose shapes and placement the restored one gets; what lies on the host is
        restored to the first device.
      warn: told one line about each checkpoint that cannot be read.

    Returns:
      Its step and its state.

    Raises:
      CheckpointError: if there is none.
    """
    host = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=x.sharding if isinstance(x, jax.Array) else host
        ),
        target,
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

    def hook(unraisable: Any) -> None:
        if unraisable.exc_type is KeyboardInterrupt:  # that is no failure of a read
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before

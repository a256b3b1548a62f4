"""The interface of evaluators, and the tools that they get."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from jax import Array

from jaxrobust.evaluation._evaluate import evaluate
from jaxrobust.evaluation._evaluation_result import EvaluationResult
from jaxrobust.evaluation._examples import one_shape, over_examples
from jaxrobust.evaluation._programs import Compiled
from jaxrobust.evaluation._rows import Row
from jaxrobust.inputs import InputError
from jaxrobust.typing import LogitsFn


def _call(call: Callable[[], Any]) -> bool:
    call()
    return True


def _called(function: Callable[..., Any], *arrays: Array) -> Any:
    return function(*arrays)


def _no_row(evaluator: "Evaluator") -> Row:
    raise InputError(f"work has no run, and so no row of {type(evaluator).__name__}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """Everything that an evaluator gets besides the network and the data.

    Args:
      threat: the run's own threat, or `None`.
      threat_text: the threat in words, such as "linf eps 0.1".
      seed: the seed of the attacks' noise.
      batch_size: examples per forward pass.
      autoattack_batch_size: largest batch of AutoAttack; default its own.
      folder: the run's folder, where finished parts may be kept, or `None`.
      title: names run and step in figures.
      name: prefix of the names of folders that belong to this checkpoint.
      card: `name`, `dataset` and `architecture` of the run.
      progress: called with the name of the running part, the number of finished examples, and their
        total number.
      say: called with each line of output for the user.
      write: calls a function that writes files. An error in it does not stop the evaluation; the
        return value says whether everything was written.
      draw: draws a picture later, once the row is kept: `(path, draw, of=...)`, where `draw(path,
        content)` writes the PNG, and `of()` returns the content.
      row: returns the row of another evaluator on the same run, and evaluates it if it is missing.

    Example:
      >>> from jaxrobust import evaluation
      >>> evaluation.Work(seed=3).batch_size
      256
    """

    threat: Any = None
    threat_text: str = ""
    seed: int = 0
    batch_size: int = 256
    autoattack_batch_size: int | None = None
    folder: pathlib.Path | None = None
    title: str = ""
    name: str = ""
    card: Mapping[str, str] = dataclasses.field(default_factory=dict)
    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    say: Callable[[str], None] = lambda line: None
    write: Callable[[Callable[[], Any]], bool] = _call
    draw: Callable[..., None] = lambda path, draw, *, of: None
    row: Callable[["Evaluator"], Row] = _no_row

    def evaluate(
        self,
        logits_fn: LogitsFn,
        images: np.ndarray,
        labels: np.ndarray,
        attacks: Mapping[str, Any],
        *,
        keep_images: bool | None = False,
    ) -> EvaluationResult:
        """`evaluate` with this seed, batch size and progress."""
        done = {"clean": 0, **dict.fromkeys(attacks, 0)}

        def advance(attack: str, examples: int) -> None:
            done[attack] += examples
            self.progress(attack, done[attack], len(labels))

        return evaluate(
            logits_fn,
            images,
            labels,
            attacks=attacks,
            batch_size=self.batch_size,
            seed=self.seed,
            keep_images=keep_images,
            advance=advance,
        )

    def over(
        self,
        function: Callable[..., Any],
        key: Array,
        *arrays: np.ndarray,
        what: str = "",
        batch_size: int | None = None,
    ) -> Any:
        """`function(keys, *arrays)` over a data set, in batches of one shape.

        Args:
          function: traceable, `([b] keys, *batch) -> outputs` with the batch on the leading axis.
          key: one key. An example's key is folded with its index, so its noise depends neither on
            the batch size nor on the devices.
          *arrays: `[n, ...]` each.
          what: name for the progress bar.
          batch_size: examples per call; default: the evaluation's batch size.

        Returns:
          The outputs of all examples, as NumPy arrays.
        """
        size, done = len(arrays[0]), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self.progress(what, done, size)

        shapes = one_shape(size, batch_size or self.batch_size)
        program = Compiled(_called, function, name=what or None)
        return over_examples(program, key, np.arange(size), *arrays, shapes=shapes, done=advance)


class Evaluator(Protocol):
    """A frozen dataclass whose fields are its settings.

    It may also have `draw(folder, rows, title) -> list[Path]`, which draws figures from its rows by
    method and seed, and `caption(rows) -> str`, which describes them.
    """

    def __call__(self, logits_fn: LogitsFn, dataset: Any, *, key: Array, work: Work) -> Row:
        """Evaluates the network on the data set's test images."""


def settings_of(evaluator: Any) -> dict[str, Any]:
    """The fields of an evaluator as plain JSON types.

    Args:
      evaluator: a dataclass; its fields may be dataclasses too.

    Returns:
      The settings by name.

    Raises:
      ValueError: if the evaluator is not a dataclass, or a field cannot be stored as JSON.

    Example:
      >>> from jaxrobust import evaluation, evaluators
      >>> evaluation.settings_of(evaluators.eps_curve(norm="l2", radii=(0.5, 1.0)))["radii"]
      [0.5, 1.0]
    """
    if not dataclasses.is_dataclass(evaluator):
        raise InputError(f"an evaluator must be a frozen dataclass, got {evaluator!r}")
    return {field.name: _plain(getattr(evaluator, field.name)) for field in _fields(evaluator)}


def _fields(value: Any) -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(value)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic | Array):
        return np.asarray(value).tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"is": _named(type(value)), **settings_of(value)}
    raise InputError(f"settings of an evaluator must be plain JSON types, got {value!r:.200}")


def _named(kind: type) -> str:
    """A class of this package by its name, any other by its path, as two may share a name."""
    own = kind.__module__.partition(".")[0] == "jaxrobust"
    return kind.__name__ if own else f"{kind.__module__}:{kind.__qualname__}"

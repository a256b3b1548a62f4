"""Running one work item on the points that are still robust, in a few batch shapes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jaxrobust.evaluation._examples import over_examples
from jaxrobust.evaluation._programs import Compiled
from jaxrobust.evaluation._protocol import WorkItem
from jaxrobust.keys import key_of

Told = Callable[[int], None]


class Points(NamedTuple):
    """Some points of the data set.

    Attributes:
      indices: `[p]` int32, in the data set; noise is folded from them.
      images: `[p, h, w, c]` clean images.
      labels: `[p]`.
      targets: `[p]` target classes of a targeted attack.
    """

    indices: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    targets: tuple[np.ndarray, ...]


class Outcome(NamedTuple):
    """The result of an item on its points.

    Attributes:
      success: `[p]` bool, the attack's own claim.
      images: `[p, h, w, c]`.
      distance: `[p]` norm of the smallest perturbation (infinite if none) from attacks that search
        for it, else NaN.
      forwards: forward passes of single examples that the protocol requires.
      backwards: the same for backward passes.
    """

    success: np.ndarray
    images: np.ndarray
    distance: np.ndarray
    forwards: int
    backwards: int


class Programs:
    """The programs of one evaluation, compiled on first use.

    Args:
      logits_fn: the network.
    """

    def __init__(self, logits_fn: Any) -> None:
        self._logits_fn = logits_fn
        self._made: dict[Any, Compiled] = {}

    def of(self, call: Callable[..., Any], item: WorkItem) -> Compiled:
        """`call(attack, logits_fn, *arrays)` as a function of the arrays."""
        if (call, item.name) not in self._made:
            name = f"{item.name}{call.__name__}".replace("-", "_")
            self._made[call, item.name] = Compiled(call, item.attack, self._logits_fn, name=name)
        return self._made[call, item.name]


def run_item(
    item: WorkItem,
    programs: Programs,
    points: Points,
    *,
    seed: int,
    shapes: list[int],
    classes: int,
    advance: Told,
) -> Outcome:
    """Runs a work item on points that are still robust."""
    key = key_of(seed)
    for number in (item.number, item.restart, item.rank):
        key = jax.random.fold_in(key, number)
    run = _in_parts if hasattr(item.attack, "go_on") else _at_once
    found = run(item, programs, points, key, shapes, advance)
    size = len(points.indices)
    each = item.attack.passes(classes, targeted=item.rank > 0)  # type: ignore[attr-defined]
    forwards, backwards = (size * passes for passes in each)
    if "queries" in found:
        forwards = int(found["queries"].sum())
    if "backwards" in found:
        backwards = int(found["backwards"].sum())
    nothing = np.full(size, np.nan, np.float32)
    distance = found.get("distance", nothing)
    return Outcome(found["success"], found["images"], distance, forwards, backwards)


Found = dict[str, np.ndarray]  # the fields of `Attacked` that an evaluation needs


def _at_once(
    item: WorkItem, programs: Programs, points: Points, key: Array, shapes: list[int], advance: Told
) -> Found:
    arrays = points.images, points.labels, *points.targets
    attack = programs.of(attack_batch, item)
    return over_examples(attack, key, points.indices, *arrays, shapes=shapes, done=advance)


def _in_parts(
    item: WorkItem, programs: Programs, points: Points, key: Array, shapes: list[int], advance: Told
) -> Found:
    """An attack in parts (`attacks.InParts`); finished points are dropped between parts."""
    attack: Any = item.attack
    begin, go_on = programs.of(_begin_batch, item), programs.of(_go_on_batch, item)
    indices, arrays = points.indices, (points.images, points.labels, *points.targets)
    state = over_examples(begin, key, indices, *arrays, shapes=shapes)
    state = jax.tree.map(np.array, state)  # to write into
    advance(int(np.asarray(attack.done(state)).sum()))
    for number in range(attack.parts):
        rows = np.flatnonzero(~np.asarray(attack.done(state)))
        if not len(rows):
            break

        def part(*batch: Any, number: int = number) -> Any:
            return go_on(np.int32(number), *batch)

        some = jax.tree.map(lambda leaf, rows=rows: leaf[rows], (state, *arrays))
        new = over_examples(part, key, indices[rows], *some, shapes=shapes)
        jax.tree.map(lambda whole, changed, rows=rows: whole.__setitem__(rows, changed), state, new)
        advance(int(np.asarray(attack.done(new)).sum()))
    advance(int((~np.asarray(attack.done(state))).sum()))
    return _needed(attack.end(state, points.images))


def attack_batch(attack: Any, logits_fn: Any, keys: Array, *batch: Array) -> dict[str, Array]:
    """The result of a bound attack on a batch; traceable."""
    return _needed(attack(logits_fn, keys, *batch))


def _begin_batch(attack: Any, logits_fn: Any, keys: Array, *batch: Array) -> Any:
    return attack.begin(logits_fn, keys, *batch)


def _go_on_batch(
    attack: Any, logits_fn: Any, number: Array, keys: Array, state: Any, *batch: Array
) -> Any:
    return attack.go_on(logits_fn, number, state, keys, *batch)


def _needed(found: Any) -> dict[str, Any]:
    """The verdicts, images, distances and passes of an `Attacked`."""
    names = ("success", "images", "distance", "queries", "backwards")
    fields = {name: getattr(found, name) for name in names}
    return {name: value for name, value in fields.items() if value is not None}

"""Running one work item on the points that are still robust, in a few batch shapes."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrobust.attacks import apgd, fab
from jaxrobust.attacks._square import SquareState, square_chunk, square_init
from jaxrobust.evaluation._batches import over_devices
from jaxrobust.evaluation._programs import Compiled
from jaxrobust.evaluation._protocol import ATTACKS, AttackSettings, WorkItem
from jaxrobust.inputs import as_network_logits
from jaxrobust.keys import key_of
from jaxrobust.processes import over_processes
from jaxrobust.typing import LogitsFn
from jaxrobust.verdicts import misclassified, predicted

CHUNK = 250  # queries of Square between two compactions


class Points(NamedTuple):
    """Some points of the data set.

    Attributes:
      indices: `[p]` int32, in the data set; noise is folded from them.
      images: `[p, h, w, c]` clean images.
      labels: `[p]`.
      targets: `[p]` target classes of this item (0 for untargeted attacks).
    """

    indices: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    targets: np.ndarray


class Outcome(NamedTuple):
    """What an item found on its points.

    Attributes:
      success: `[p]` bool, the attack's own claim.
      images: `[p, h, w, c]`.
      distance: `[p]` norm of the smallest perturbation (FAB; infinite if none), else NaN.
      forwards: forward passes of single examples that the protocol asks for.
      backwards: likewise backward passes.
    """

    success: np.ndarray
    images: np.ndarray
    distance: np.ndarray
    forwards: int
    backwards: int


def bucket_sizes(batch_size: int, devices: int) -> list[int]:
    """The three batch shapes that are ever compiled, each a multiple of the device count."""
    sizes = (batch_size, batch_size // 4, batch_size // 16)
    return sorted({max(devices, -(-max(s, 8) // devices) * devices) for s in sizes}, reverse=True)


Bucket = tuple[int, int, int]  # first point, number of points, batch shape


def buckets(size: int, sizes: list[int], processes: int = 1) -> Iterator[Bucket]:
    """Covers `size` points by batches: yields (start, number of points, batch shape).

    A shape is taken if it wastes at most half of itself, also of the share that each process
    should have; else a smaller one is filled first.
    """
    start, share = 0, -(-size // processes)
    while start < size:
        left = size - start
        fitting = [s for s in sizes if s < 2 * min(left, share) or s == sizes[-1]]
        shape = max(fitting) if left > min(fitting) else sizes[-1]
        count = min(left, shape)
        yield start, count, shape
        start += count


def in_buckets(
    size: int,
    sizes: list[int],
    work: Callable[[int, int, int], Any],
    *,
    done: Callable[[int], None] = lambda count: None,
) -> Any:
    """`work(start, count, shape)` over all points, in all processes, outputs joined.

    Args:
      size: number of points.
      sizes: batch shapes.
      work: gives a pytree of arrays `[shape, ...]`, of which the first `count` rows count.
      done: told the number of points after each batch.
    """

    def job(bucket: Bucket) -> Any:
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: bucket[1]], work(*bucket))

    jobs = list(buckets(size, sizes, jax.process_count()))
    parts = over_processes(jobs, job, done=lambda bucket: done(bucket[1]))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


class Programs:
    """The compiled programs of one evaluation, made when they are first asked for.

    Args:
      logits_fn: the network.
    """

    def __init__(self, logits_fn: Any) -> None:
        self._logits_fn = logits_fn
        self._made: dict[Any, Compiled] = {}

    def of(self, call: Callable[..., Any], *static: Any) -> Compiled:
        """`call(*static, logits_fn, *arrays)` as a function of the arrays."""
        if (call, static) not in self._made:
            self._made[call, static] = Compiled(call, self._logits_fn, static=static)
        return self._made[call, static]


def run_item(
    item: WorkItem,
    programs: Programs,
    points: Points,
    *,
    eps: float,
    seed: int,
    sizes: list[int],
    classes: int,
    advance: Callable[[int], None],
) -> Outcome:
    """Runs a work item on points that are still robust."""
    if item.settings.attack == "square":
        return _run_square(item, programs, points, eps=eps, seed=seed, sizes=sizes, advance=advance)
    radius = np.float32(eps)
    is_fab = item.settings.attack.startswith("fab")
    attack = programs.of(fab_batch if is_fab else apgd_batch, item.settings)
    number = ATTACKS.index(item.settings.attack)

    def work(start: int, count: int, shape: int) -> Any:
        batch = padded(points, start, count, shape)
        keys = item_keys(seed, number, item.restart, item.rank, batch.indices)
        arguments = over_devices((keys, batch.images, batch.labels, batch.targets))
        return attack(*arguments, radius)

    success, images, *distance = in_buckets(len(points.indices), sizes, work, done=advance)
    size, steps = len(points.indices), item.settings.steps
    if is_fab:
        runs = steps * size * item.settings.restarts
        differences = 1 if item.settings.attack == "fab-t" else classes - 1
        return Outcome(success, images, distance[0], 2 * runs, differences * runs)
    passes = (steps + 1) * item.settings.eot * size
    return Outcome(success, images, np.full(size, np.nan, np.float32), passes, passes)


def padded(points: Points, start: int, count: int, shape: int) -> Points:
    """A batch of one shape: the points, then repeats of the first of them."""
    rows = np.full(shape, start)
    rows[:count] = np.arange(start, start + count)
    return Points(*(field[rows] for field in points))


@jax.jit
def item_keys(seed: int, attack: int, restart: int, rank: int, indices: Array) -> Array:
    """A key per point of (seed, attack, restart, target rank, index in the data set)."""
    key = key_of(seed)
    for number in (attack, restart, rank):
        key = jax.random.fold_in(key, number)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, indices)


def apgd_batch(
    settings: AttackSettings,
    logits_fn: LogitsFn,
    keys: Array,
    images: Array,
    labels: Array,
    targets: Array,
    eps: Array,
) -> tuple[Array, Array]:
    """APGD on one batch: success and images."""
    loss: Any = settings.loss
    if loss == "margin_targeted":
        loss = _margin_to(targets)
    found = apgd(
        logits_fn,
        keys,
        images,
        labels,
        norm=settings.norm,
        eps=eps,
        loss=loss,
        targets=targets if loss == "dlr_targeted" else None,
        steps=settings.steps,
        eot=settings.eot,
        stochastic=settings.stochastic,
        eps_schedule=settings.eps_schedule,
    )
    return found.success, found.images


def _margin_to(targets: Array) -> Any:
    """The margin against one target, for three classes, where the targeted DLR is undefined."""

    def loss(logits: Array, labels: Array) -> Array:
        classes = jnp.arange(logits.shape[-1], dtype=labels.dtype)[None]
        to_target = jnp.where(targets[:, None] == classes, logits, 0).sum(-1)
        return to_target - jnp.where(labels[:, None] == classes, logits, 0).sum(-1)

    return loss


def fab_batch(
    settings: AttackSettings,
    logits_fn: LogitsFn,
    keys: Array,
    images: Array,
    labels: Array,
    targets: Array,
    eps: Array,
) -> tuple[Array, Array, Array]:
    """FAB on one batch: success within eps, images and smallest distances."""
    found = fab(
        logits_fn,
        keys,
        images,
        labels,
        norm=settings.norm,
        eps=eps,
        targets=targets if settings.attack == "fab-t" else None,
        steps=settings.steps,
        restarts=settings.restarts,
    )
    assert found.distance is not None
    return found.success, found.images, found.distance


def _run_square(
    item: WorkItem,
    programs: Programs,
    points: Points,
    *,
    eps: float,
    seed: int,
    sizes: list[int],
    advance: Callable[[int], None],
) -> Outcome:
    """Square in chunks of queries; points that are done leave between chunks."""
    norm, radius = item.settings.norm, np.float32(eps)
    attack = ATTACKS.index("square")

    def step(rows: np.ndarray, state: SquareState | None, first: int, queries: int) -> SquareState:
        chosen = Points(*(field[rows] for field in points))

        def work(start: int, count: int, shape: int) -> SquareState:
            batch = padded(chosen, start, count, shape)
            keys = item_keys(seed, attack, item.restart, 0, batch.indices)
            arguments = over_devices((keys, batch.images, batch.labels))
            if state is None:
                return programs.of(_square_init, norm)(*arguments, radius)
            take = np.full(shape, start)
            take[:count] = np.arange(start, start + count)
            part = over_devices(jax.tree.map(lambda leaf: leaf[take], state))
            chunk = programs.of(_square_chunk, norm, queries)
            return chunk(part, *arguments, radius, np.int32(first))

        return in_buckets(len(rows), sizes, work)

    state = step(np.arange(len(points.indices)), None, 0, 0)
    state = jax.tree.map(np.array, state)
    for first in range(0, item.settings.steps, CHUNK):
        rows = np.flatnonzero(~state.done)
        if not len(rows):
            break
        part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], state)
        new = step(rows, part, first, min(CHUNK, item.settings.steps - first))
        for whole, changed in zip(state, new, strict=True):
            whole[rows] = changed
        advance(int((state.done[rows]).sum()))
    advance(int((~state.done).sum()))
    distance = np.full(len(points.indices), np.nan, np.float32)
    return Outcome(state.success, state.images, distance, int(state.queries.sum()), 0)


def _square_init(
    norm: Any, logits_fn: LogitsFn, keys: Array, images: Array, labels: Array, eps: Array
) -> SquareState:
    return square_init(logits_fn, keys, images, labels, norm=norm, eps=eps)


def _square_chunk(
    norm: Any,
    queries: int,
    logits_fn: LogitsFn,
    state: SquareState,
    keys: Array,
    images: Array,
    labels: Array,
    eps: Array,
    first_query: Array,
) -> SquareState:
    return square_chunk(
        logits_fn,
        state,
        keys,
        images,
        labels,
        norm=norm,
        eps=eps,
        first_query=first_query,
        queries=queries,
    )


def clean_batch(
    stochastic: bool, logits_fn: Any, images: Array, labels: Array, indices: Array
) -> tuple[Array, Array, Array]:
    """Logits, whether misclassified, and the prediction (-1 for NaN logits).

    A `stochastic` network is a `OneDraw`, whose noise goes by the indices in the data set.
    """
    logits = logits_fn(images, indices) if stochastic else logits_fn(images)
    logits = as_network_logits(logits, batch=len(images))
    return logits, misclassified(logits, labels), predicted(logits)


def forward(
    clean: Compiled,
    images: np.ndarray,
    labels: np.ndarray,
    sizes: list[int],
    *,
    indices: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A compiled `clean_batch` over any number of images; `indices` default to all of the data."""
    if indices is None:
        indices = np.arange(len(labels))
    points = Points(indices.astype(np.int32), images, labels, labels)

    def work(start: int, count: int, shape: int) -> Any:
        batch = padded(points, start, count, shape)
        return clean(*over_devices((batch.images, batch.labels, batch.indices)))

    return in_buckets(len(labels), sizes, work)

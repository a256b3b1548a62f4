"""The members that train together: their data, and the files of each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrobust.data import Dataset
from jaxrobust.devices import replicated
from jaxrobust.experiment import Experiment
from jaxrobust.keys import key_of
from jaxrobust.training._checkpoints import Checkpoints
from jaxrobust.training._feed import Feed
from jaxrobust.training._interrupt import StopRequest
from jaxrobust.training._prepare import Validator
from jaxrobust.training._reporting import MetricsFile
from jaxrobust.training._rows import image_rows
from jaxrobust.training._state import TrainState
from jaxrobust.training._watch import NonFiniteLossError, Watch

MEMBERS = "members"


class MemberData(NamedTuple):
    """What the members train on: of each seed its examples, one seed after the other."""

    dataset: Dataset
    held_out: list[Dataset]  # of each member
    images: Any
    labels: Any
    orders: Callable[[int], Any]  # of an epoch, for each member `[members, steps, batch]`
    steps_per_epoch: int


def member_data(experiments: list[Experiment], mesh: Mesh) -> MemberData:
    """Reads the data once and draws each seed's held-out examples."""
    first = experiments[0]
    dataset = first.build("data")
    seeds = list(dict.fromkeys(experiment.seed for experiment in experiments))
    place = [seeds.index(experiment.seed) for experiment in experiments]
    splits = [dataset.held_out(first.validation.size, seed=seed) for seed in seeds]
    feeds = [Feed.of(first, rest) for rest, _ in splits]
    draw = jax.jit(feeds[0].order)

    def orders(epoch: int) -> Any:
        keys = [jax.random.fold_in(key_of(seed), 1) for seed in seeds]
        each = [draw(key, epoch) + n * len(feeds[0].labels) for n, key in enumerate(keys)]
        return stacked([each[n] for n in place], mesh)

    return MemberData(
        dataset,
        [splits[n][1] for n in place],
        replicated(np.concatenate([image_rows(feed.images) for feed in feeds]), mesh),
        replicated(np.concatenate([feed.labels for feed in feeds]), mesh),
        orders,
        feeds[0].steps_per_epoch,
    )


class MemberRun:
    """One member: its files, its metrics, and its failure if it has one."""

    def __init__(
        self,
        experiment: Experiment,
        folder: epath.Path,
        steps_per_epoch: int,
        keep: int,
        validate: Validator,
        say: Callable[[str], None],
    ) -> None:
        self.folder, self._validate = folder, validate
        self.failure: NonFiniteLossError | None = None
        self._checkpoints = Checkpoints(folder / "checkpoints", keep=keep, warn=say)
        self._metrics = MetricsFile(folder / "metrics.jsonl", resume_step=0)
        self._watch = Watch(experiment, self._checkpoints, steps_per_epoch)
        self._steps_per_epoch = steps_per_epoch
        self._row: dict[str, Any] | None = None  # of an epoch, until it is written

    def see(self, step: int, rows: list[dict[str, float]], more: dict[str, float] | None) -> None:
        """The metrics of the last steps; where an epoch is done, its row has some more."""
        if self.failure is not None:
            return
        try:
            for number, row in enumerate(rows, step - len(rows) + 1):
                self._watch.see(number, row)
            self._watch.flush()
        except NonFiniteLossError as error:
            self.failure = error
            return
        if more is not None:
            epoch = step // self._steps_per_epoch
            self._row = {"epoch": epoch, **self._watch.epoch_row(**more)}

    def keep(
        self, step: int, model: Any, state: TrainState | None, stop: StopRequest, *, validated: bool
    ) -> dict[str, Any] | None:
        """Writes the epoch's row, and the state if there is one; returns the row."""
        if self.failure is not None:
            return None
        found = self._validate(model, state) if validated and state is not None else {}
        row, self._row = self._row, None
        if row is not None:
            row |= {f"validation_{name}": value for name, value in found.items()}
            self._metrics.write(step, row)
            row = {"step": step, **row}
        if state is not None:
            with stop.shielded():
                self._checkpoints.save(step, state, validation=found.get("robust_accuracy"))
        return row

    def close(self) -> None:
        """Closes the files."""
        self._metrics.close()
        self._checkpoints.close()


def stacked(trees: list[Any], mesh: Mesh) -> Any:
    """Trees of equal structure as one, with the axis of members first."""
    tree = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    return jax.device_put(tree, NamedSharding(mesh, P(MEMBERS)))

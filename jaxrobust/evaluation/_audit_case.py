"""An audit while it goes on: stage after stage on the points that are left."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxrobust import threats
from jaxrobust.evaluation._audit_probe import Probe, probe
from jaxrobust.evaluation._audit_stages import Route, Stage
from jaxrobust.evaluation._checks import verify_images
from jaxrobust.evaluation._clean import forward
from jaxrobust.evaluation._examples import over_examples
from jaxrobust.evaluation._programs import Compiled
from jaxrobust.evaluation._store import Store, made_once
from jaxrobust.evaluation._work import attack_batch
from jaxrobust.keys import key_of
from jaxrobust.typing import LogitsFn

VOTES = 9  # passes of a network that answers differently each time; most of them decide
ITEM = frozenset({"indices", "fooled", "images"})  # of every stored run
Progress = Callable[[str, int, int], None]


@dataclass
class Case:
    """An audit while it goes on."""

    once: Compiled
    images: np.ndarray
    labels: np.ndarray
    order: np.ndarray  # wrong classes by falling clean logits
    seed: int
    shapes: list[int]
    unsure: bool
    store: Store | None = None  # of finished runs
    items: int = 0  # runs so far
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)
    adversarial: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.adversarial = self.images.copy()

    def left(self) -> np.ndarray:
        """The places of the points that nothing has felled."""
        return np.flatnonzero(next(reversed(self.masks.values())))

    def probed(self, threat: Any, logits_fn: LogitsFn) -> Probe:
        """The gradients of the points that are left."""
        rows = self.left()
        if not len(rows):
            return Probe(*[np.zeros(0, np.float32)] * len(Probe._fields))
        program = Compiled(probe, threat, logits_fn)
        key = jax.random.fold_in(key_of(self.seed), 0)
        arrays = self.images[rows], self.labels[rows]
        return over_examples(program, key, rows, *arrays, shapes=self.shapes)

    def rounds(
        self, planned: Callable[[int], list[Stage]], most: int, progress: Progress
    ) -> tuple[int, bool]:
        """Rounds of the planned stages until one fells no point; how many, and whether one did."""
        number, settled, programs = 0, False, {}
        while number < most and not settled:
            if number < 2:  # of the third round on, the programs are those of the second
                current = planned(number)
                programs = {s.name: Compiled(attack_batch, s.attack, s.network) for s in current}
            counts = [self.run(s, programs[s.name], number, progress) for s in current]
            settled, number = not any(counts), number + 1
        return number, settled

    def run(self, stage: Stage, program: Compiled, number: int, progress: Progress) -> int:
        """Runs a stage on the points that are left; returns how many fell."""
        name = stage.name + (f", round {number + 1}" if number else "")
        self.routes[name] = stage.route
        mask = next(reversed(self.masks.values())).copy()
        self.masks[name] = mask
        runs = max(1, stage.targets)
        for rank in range(runs):
            rows = np.flatnonzero(mask)
            progress(name, rank, runs)
            if len(rows):
                key = key_of(self.seed)
                for part in (number + 1, len(self.masks), rank):
                    key = jax.random.fold_in(key, part)
                found = self._finished(stage, name, program, rows, rank, key)
                places = rows[found["fooled"]]
                mask[places] = False
                self.adversarial[places] = found["images"]
        progress(name, runs, runs)
        return int((list(self.masks.values())[-2] & ~mask).sum())

    def _finished(
        self, stage: Stage, name: str, program: Compiled, rows: np.ndarray, rank: int, key: Array
    ) -> dict[str, np.ndarray]:
        """One run on these points: from the store, or made now and stored."""

        def make() -> dict[str, np.ndarray]:
            targets = (self.order[rows, rank].astype(np.int32),) if stage.targets else ()
            arrays = self.images[rows], self.labels[rows], *targets
            found = over_examples(program, key, rows, *arrays, shapes=self.shapes)
            return self._confirmed(stage, name, rows, found)

        self.items += 1
        return made_once(self.store, self.items - 1, rows, make)

    def _confirmed(
        self, stage: Stage, name: str, rows: np.ndarray, found: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Which points' images are inside the set and fool the true network, and these images."""
        claimed = np.flatnonzero(found["success"])
        images, fooled = found["images"][claimed].astype(np.float32), np.zeros(len(rows), bool)
        if not len(claimed):
            return {"fooled": fooled, "images": images}
        threat = stage.attack.threat
        norm: Any = threats.norm_of(threat)
        verify_images(norm, float(threat.eps), self.images[rows[claimed]], images, name)
        labels, passes = self.labels[rows[claimed]], VOTES if self.unsure else 1
        votes = [forward(self.once, images, labels, self.shapes)[1] for _ in range(passes)]
        wrong = np.mean(votes, axis=0) > 0.5
        fooled[claimed[wrong]] = True
        return {"fooled": fooled, "images": images[wrong]}

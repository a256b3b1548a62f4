"""Whether a robust accuracy can be trusted: the points that an attack has left, attacked anew."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxrobust import threats
from jaxrobust.evaluation._audit_probe import Probe, probe
from jaxrobust.evaluation._audit_report import AuditReport
from jaxrobust.evaluation._audit_stages import Route, Stage, stages
from jaxrobust.evaluation._autoattack import autoattack
from jaxrobust.evaluation._cascade import batch_shapes, checked_ball
from jaxrobust.evaluation._checks import check_labels_fit, verify_images
from jaxrobust.evaluation._clean import clean_batch, clean_pass, forward
from jaxrobust.evaluation._examples import over_examples
from jaxrobust.evaluation._programs import Compiled
from jaxrobust.evaluation._work import attack_batch
from jaxrobust.inputs import InputError, as_array, as_count, as_seed
from jaxrobust.keys import key_of
from jaxrobust.twins import gradient_stops
from jaxrobust.typing import LogitsFn, Norm

VOTES = 9  # passes of a network that answers differently each time; most of them decide
SMALLEST = 32  # of the batch shapes: another program for fewer points costs more than it saves
Progress = Callable[[str, int, int], None]


def audit(
    logits_fn: LogitsFn,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: Norm = "linf",
    eps: float,
    robust: ArrayLike | None = None,
    others: Sequence[LogitsFn] = (),
    seed: int = 0,
    batch_size: int | None = None,
    steps: int = 100,
    queries: int = 1000,
    rounds: int = 3,
    progress: Progress = lambda stage, done, total: None,
) -> AuditReport:
    """Whether a robust accuracy can be trusted.

    It lists what stops gradients in the network, measures the gradients, and attacks the points
    that another attack has left: with targets, steps and restarts (more of the same), and around
    the network's own gradients: through its straight-through twin, through a copy smoothed by
    noise, from other networks, and by random search. Rounds are repeated with new noise and twice
    the steps until none fells a point. A finding is a suspicion; a point that falls is a proof.
    Every image is checked against norm and box and counts only if the true network, in a pass of
    its own, misclassifies it; a network that answers differently each time must do so in most of 9
    passes.

    Args:
      logits_fn: images `[b, h, w, c]` in [0, 1] -> logits `[b, k]`, k >= 2, in evaluation mode.
      images: `[n, h, w, c]` floating point in [0, 1]; attacked in float32.
      labels: `[n]` integers in 0..k-1.
      norm: "linf", "l2" or "l1".
      eps: radius in image units (8/255, not 8).
      robust: `[n]` bool, the points that another attack has left, such as
        `report.masks["square"]`. Default: those that APGD on cross-entropy and targeted APGD leave.
      others: networks to transfer from, such as the same one without its defence.
      seed: of all noise.
      batch_size: largest batch; default 128 on CPU, 512 elsewhere.
      steps: of the gradient attacks in the first round.
      queries: of random search.
      rounds: the most rounds that are run.
      progress: told the stage, how many of its runs on points are done, and of how many.

    Returns:
      `AuditReport`, with a verdict, the points that fell to each stage, findings and gradients.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range, or the logits of an
        image depend on the rest of its batch.
      AttackResultError: if an attack returns an image outside its set.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import evaluation
      >>> def logits_fn(x): return jnp.round(20 * x.mean((1, 2)) - 10) @ jnp.array([[1.0, -1.0]])
      >>> images = jnp.array([0.1, 0.42, 0.58, 0.9]).reshape(4, 1, 1, 1)
      >>> report = evaluation.audit(logits_fn, images, jnp.array([1, 1, 0, 0]), eps=0.15,
      ...     robust=jnp.ones(4, bool), steps=5, queries=5, rounds=1)
      >>> report.trusted, report.robust_accuracy.value
      (False, 0.5)

    References:
      Athalye et al., 2018 (arXiv:1802.00420). Carlini et al., On Evaluating Adversarial
      Robustness, 2019 (arXiv:1902.06705). Tramer et al., On Adaptive Attacks to Adversarial
      Example Defenses, 2020 (arXiv:2002.08347).
    """
    images, labels = checked_ball(images, labels, norm, eps)
    seed, rounds = as_seed(seed), as_count(rounds, name="rounds")
    as_count(steps, name="steps"), as_count(queries, name="queries")
    mask = None if robust is None else checked_mask(robust, len(labels))
    if not isinstance(others, Sequence):
        raise InputError(f"others must be a list of networks, got {others!r:.80}")
    for number, other in enumerate(others):
        if not callable(other):
            raise InputError(f"others must be networks, got {other!r} at place {number}")
    started = time.perf_counter()
    sizes = batch_shapes(batch_size, len(labels))
    shapes = [size for size in sizes if size >= SMALLEST] or sizes[:1]
    once = Compiled(clean_batch, logits_fn, static=(False,))
    unsure, logits, wrong = _clean(once, images, labels, shapes)
    if mask is None:
        quick: dict[str, Any] = {"version": "custom", "attacks": ["apgd-ce", "apgd-t"]}
        quick |= {"steps": steps, "seed": seed, "batch_size": batch_size, "progress": progress}
        first = autoattack(logits_fn, images, labels, norm=norm, eps=eps, **quick)
        mask = first.masks["apgd-t"]
    left = mask & ~wrong
    found = gradient_stops(logits_fn, images[:1])
    order = np.where(np.eye(logits.shape[1], dtype=bool)[labels], -np.inf, logits)
    case = Case(once, images, labels, np.argsort(-order, -1, kind="stable"), seed, shapes, unsure)
    case.masks |= {"clean": ~wrong, "before": left}
    made: dict[str, Any] = {"norm": norm, "eps": np.float32(eps), "shape": images.shape[1:]}
    made |= {"classes": logits.shape[1], "stopped": bool(found), "others": others, "seed": seed}
    threat = getattr(threats, norm)(np.float32(eps))
    gradients = case.probed(threat, logits_fn)
    settled, number, programs = False, 0, {}
    while number < rounds and not settled:
        if number < 2:  # of the third round on, the programs are those of the second
            long = steps * (1 + (number > 0))
            planned = stages(logits_fn, steps=long, queries=queries, **made)
            programs = {s.name: Compiled(attack_batch, s.attack, s.network) for s in planned}
        counts = [case.run(s, programs[s.name], number, progress) for s in planned]
        settled, number = not any(counts), number + 1
    return AuditReport(
        norm=norm,
        eps=float(eps),
        seed=seed,
        labels=labels,
        masks=case.masks,
        routes=case.routes,
        adversarial_images=case.adversarial,
        findings=found,
        probe=gradients,
        rounds=number,
        settled=settled,
        random=unsure,
        seconds=time.perf_counter() - started,
    )


def checked_mask(robust: ArrayLike, count: int) -> np.ndarray:
    """The mask of points, if it is one."""
    mask = np.asarray(as_array(robust, name="robust"))
    if mask.dtype != bool or mask.shape != (count,):
        raise InputError(
            f"robust must be bool [n], here [{count}], got {mask.dtype} of shape {mask.shape}"
        )
    return mask


def _clean(
    once: Compiled, images: np.ndarray, labels: np.ndarray, shapes: list[int]
) -> tuple[bool, np.ndarray, np.ndarray]:
    """Whether a network answers differently each time; its logits, and whether it is wrong."""
    some = slice(0, shapes[-1])
    one, two = (forward(once, images[some], labels[some], shapes)[0] for _ in range(2))
    if np.array_equal(one, two, equal_nan=True):
        return False, *clean_pass(once, images, labels, shapes)[:2]
    passes = [forward(once, images, labels, shapes) for _ in range(VOTES)]
    check_labels_fit(labels, passes[0][0])
    logits = np.mean([found[0] for found in passes], axis=0)
    return True, logits, np.mean([found[1] for found in passes], axis=0) > 0.5


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
                targets = (self.order[rows, rank].astype(np.int32),) if stage.targets else ()
                arrays = self.images[rows], self.labels[rows], *targets
                found = over_examples(program, key, rows, *arrays, shapes=self.shapes)
                mask[self._confirmed(stage, name, rows, found)] = False
        progress(name, runs, runs)
        return int((list(self.masks.values())[-2] & ~mask).sum())

    def _confirmed(
        self, stage: Stage, name: str, rows: np.ndarray, found: dict[str, np.ndarray]
    ) -> np.ndarray:
        """The points whose images are inside the set and fool the true network."""
        claimed = np.flatnonzero(found["success"])
        rows, images = rows[claimed], found["images"][claimed].astype(np.float32)
        if not len(rows):
            return rows
        threat = stage.attack.threat
        norm: Any = threats.norm_of(threat)
        verify_images(norm, float(threat.eps), self.images[rows], images, name)
        passes = VOTES if self.unsure else 1
        votes = [
            forward(self.once, images, self.labels[rows], self.shapes)[1] for _ in range(passes)
        ]
        fooled = np.mean(votes, axis=0) > 0.5
        self.adversarial[rows[fooled]] = images[fooled]
        return rows[fooled]

"""Certified, falsified and open points: bounds and attacks bracket robust accuracy."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

import jaxrobust
from jaxrobust import bounds
from jaxrobust.attacks import APGD, PGD, Attack
from jaxrobust.evaluation._bracket_report import Bracket
from jaxrobust.evaluation._cascade import as_folder, network_digests, store_in
from jaxrobust.evaluation._checks import verify_images
from jaxrobust.evaluation._clean import clean_batch, clean_pass
from jaxrobust.evaluation._evaluate import check_by_name, checked_data
from jaxrobust.evaluation._examples import bucket_sizes, over_examples
from jaxrobust.evaluation._identity import Identity, identity_of
from jaxrobust.evaluation._programs import Compiled
from jaxrobust.evaluation._store import Store, made_once, model_digest
from jaxrobust.inputs import InputError, as_choice, as_count, as_flag, as_number, as_seed
from jaxrobust.keys import key_of
from jaxrobust.losses import margin
from jaxrobust.processes import from_first
from jaxrobust.threats import described, norm_of
from jaxrobust.typing import NORMS, LogitsFn

Method = Literal["ibp", "crown-ibp", "crown", "alpha-crown"]
METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown")
SLACK = 1e-4  # of 1 + the largest margin: more than float32 rounding moves a bound


class ContradictionError(Exception):
    """A point was certified, and an attack fooled the network within the certified set."""


def bracket(
    logits_fn: LogitsFn,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    threat: Any,
    cheap: Sequence[Method] = ("ibp", "crown-ibp"),
    costly: Sequence[Method] = ("crown", "alpha-crown"),
    attacks: Mapping[str, Attack] | None = None,
    attack_certified: bool = True,
    batch_size: int = 256,
    bound_batch_size: int = 16,
    slack: float = SLACK,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    advance: Callable[[str, int], None] = lambda stage, examples: None,
) -> Bracket:
    """Brackets robust accuracy: certified <= robust <= attacked, point by point.

    Misclassified points are falsified without an attack. For the others, cheap bounds run first,
    then the attacks, then costly bounds on the points that are still open. No point is called
    robust because an attack failed, and none is called broken because no bound proved it.

    Bounds hold in real arithmetic. A margin counts as proved only above `slack` (1 + the largest
    margin of the point), which exceeds the effect of float32 rounding.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`, k >= 2, in evaluation mode, built from
        operations that `jaxrobust.bounds` supports.
      images: `[n, h, w, c]` floating point in [0, 1]; half precision is widened to float32.
      labels: `[n]` integers in 0..k-1.
      threat: `threats.linf`, `l2` or `l1` with one radius for all points.
      cheap: methods of `bounds.margins` that run before the attacks, in order.
      costly: methods that run after the attacks, in order.
      attacks: by name, `(logits_fn, keys, images, labels) -> Attacked`; default APGD on the
        cross-entropy and PGD on the margin, 50 steps each.
      attack_certified: attack certified points too, as a check of the bounds.
      batch_size: examples per forward pass of an attack.
      bound_batch_size: number of examples bounded at once; for each, CROWN needs the memory of
        about a thousand layers.
      slack: see above; 0 uses the computed bounds unchanged.
      seed: the seed of the attacks' noise.
      folder: keeps finished stages and continues from them, as `autoattack` does. Delete it after
        registering other rules of the bounds. Default: nothing is kept.
      advance: called with the stage and the number of examples after each batch (for a progress
        bar).

    Returns:
      `Bracket`.

    Raises:
      UnsupportedPrimitive: if the network has an operation without a rule.
      ValueError: if an argument is not of the stated kind, shape or range, or `folder` holds
        another evaluation.
      ContradictionError: if an attack fools the network on a certified point.
      AttackResultError: if an attack returns an image outside of its set.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import evaluation, threats
      >>> def logits_fn(x): return (x.mean((1, 2)) - 0.5) @ jnp.array([[10.0, -10.0]])
      >>> images = jnp.array([0.1, 0.45, 0.55, 0.9]).reshape(4, 1, 1, 1)
      >>> found = evaluation.bracket(logits_fn, images, jnp.array([1, 1, 0, 0]),
      ...     threat=threats.linf(0.1))
      >>> found.verdicts.tolist()
      ['certified', 'falsified', 'falsified', 'certified']
    """
    images, labels = checked_data(images, labels)
    if images.dtype.itemsize < 4:  # bounds are those of the network in float32: so must all else be
        images = images.astype(np.float32)
    _check(threat, cheap, costly, slack)
    as_count(batch_size, name="batch_size")
    as_count(bound_batch_size, name="bound_batch_size")
    if attacks is None:
        attacks = {
            "apgd": APGD(threat=threat, steps=50),
            "margin_pgd": PGD(threat=threat, steps=50, loss=margin),
        }
    check_by_name(attacks)
    as_flag(attack_certified, name="attack_certified")
    names = {"", "clean", "open", *METHODS} & set(attacks)
    if names:
        raise InputError(f"attacks must have names of their own, got {sorted(names)}")
    path = as_folder(folder)
    run = _Run(logits_fn, images, labels, threat, slack, as_seed(seed), advance)
    run.clean(batch_size)
    programs = {
        name: Compiled(_fooled, attack, logits_fn, name=name.replace("-", "_"))
        for name, attack in attacks.items()
    }
    with contextlib.ExitStack() as stack:
        if path is not None:
            asked = {
                "bracket": described(threat),
                "rules": jaxrobust.__version__,  # a later version may have mended one
                "eps": float(threat.eps),
                "seed": run.seed,
                "cheap": list(cheap),
                "costly": list(costly),
                "attacks": {name: run.digest(program) for name, program in programs.items()},
            }
            run.store = from_first(
                lambda: store_in(stack, path, asked, run.identity(), needs=frozenset({"indices"}))
            )
        for method in cheap:
            run.bound(method, bound_batch_size)
        for number, (name, program) in enumerate(programs.items(), start=1):
            run.attack(name, program, number, batch_size, certified=attack_certified)
        for method in costly:
            run.bound(method, bound_batch_size)
    return run.found()


def _check(threat: Any, cheap: Sequence[str], costly: Sequence[str], slack: float) -> None:
    for name, methods in (("cheap", cheap), ("costly", costly)):
        if not isinstance(methods, tuple | list):
            raise InputError(f"{name} must be a tuple of methods, got {methods!r:.80}")
        for method in methods:
            as_choice(method, name=name, choices=METHODS)
    as_number(slack, name="slack", low=0, lead=())
    if norm_of(threat) not in NORMS or not hasattr(threat, "eps"):
        raise InputError(
            f"threat must be the ball of a norm ({', '.join(NORMS)}), got {described(threat)}"
        )
    if jnp.ndim(threat.eps):
        raise InputError(
            f"threat must have one radius for all points, got eps of shape {jnp.shape(threat.eps)}"
        )


class _Run:
    """The points so far."""

    def __init__(
        self,
        logits_fn: LogitsFn,
        images: np.ndarray,
        labels: np.ndarray,
        threat: Any,
        slack: float,
        seed: int,
        advance: Callable[[str, int], None],
    ) -> None:
        self.logits_fn, self.threat, self.slack = logits_fn, threat, slack
        self.images, self.labels = images, labels
        self.seed, self.advance = seed, advance
        size = len(labels)
        self.certified, self.falsified = np.zeros(size, bool), np.zeros(size, bool)
        self.decided_by = np.full(size, "", object)
        self.margins = np.full(size, np.nan, np.float64)
        self.seconds: dict[str, float] = {}
        self.store: Store | None = None  # of finished stages
        self.stages = 0

    def found(self) -> Bracket:
        """The result."""
        decided, said = self.decided_by.astype(str), described(self.threat)
        parts = self.certified, self.falsified, decided, self.margins, self.seconds
        return Bracket(*parts, said, self.slack)

    def clean(self, batch_size: int) -> None:
        """Falsifies the points that are misclassified without an attack."""
        started = time.perf_counter()
        self.once = Compiled(clean_batch, self.logits_fn, static=(False,))
        done = partial(self.advance, "clean")
        shapes = self._shapes(batch_size)
        self.logits, wrong, _ = clean_pass(self.once, self.images, self.labels, shapes, done=done)
        self._decide("clean", np.arange(len(wrong)), wrong, self.falsified)
        self.seconds["clean"] = time.perf_counter() - started

    def identity(self) -> Identity:
        """What the network and its data are; `clean` comes first."""
        arrays = self.images, self.labels
        digests = network_digests(self.logits_fn, self.once, *arrays, self.logits)
        return identity_of(digests, *arrays, logits=self.logits, slopes=np.zeros((0, 2)))

    def digest(self, program: Compiled) -> str:
        """Of what an attack computes, and of its arrays."""
        two = jax.random.split(key_of(self.seed)), self.images[[0, 0]], self.labels[[0, 0]]
        return program.structure(*two) + model_digest(program.held(), self.logits)

    def bound(self, method: Method, batch_size: int) -> None:
        """Certifies open points by a method of bounds."""
        rows = np.flatnonzero(~(self.certified | self.falsified))
        done, shapes = partial(self.advance, method), self._shapes(batch_size)

        def make() -> dict[str, Any]:
            call = Compiled(_smallest, self.threat, self.logits_fn, static=(method,), name=method)
            arrays = self.images[rows], self.labels[rows]
            least, largest = over_examples(call, None, rows, *arrays, shapes=shapes, done=done)
            return {"least": least, "largest": largest}

        made = self._stage(method, rows, make)
        if made is None:
            return
        least = made["least"]
        self.margins[rows] = np.fmax(self.margins[rows], least)
        proved = least > self.slack * (1 + made["largest"])  # NaN and infinities prove nothing
        self._decide(method, rows, proved, self.certified)

    def attack(
        self, name: str, program: Compiled, number: int, batch_size: int, *, certified: bool
    ) -> None:
        """Falsifies points by an attack.

        Raises:
          ContradictionError: if one of them was certified.
        """
        rows = np.flatnonzero(~self.falsified if certified else ~(self.certified | self.falsified))
        done, shapes = partial(self.advance, name), self._shapes(batch_size)

        def make() -> dict[str, Any]:
            key = jax.random.fold_in(key_of(self.seed), number)
            arrays = self.images[rows], self.labels[rows]
            wrong, images = over_examples(program, key, rows, *arrays, shapes=shapes, done=done)
            norm: Any = norm_of(self.threat)
            verify_images(norm, float(self.threat.eps), arrays[0][wrong], images[wrong], name)
            return {"fooled": wrong, "images": images[wrong]}

        made = self._stage(name, rows, make)
        if made is None:
            return
        both = rows[made["fooled"] & self.certified[rows]]
        if len(both):
            raise ContradictionError(
                f"{name} fools the network on {len(both)} certified points, the first of them "
                f"number {both[0]}, certified by {self.decided_by[both[0]]} with the margin "
                f"{self.margins[both[0]]:.3g}: a rule of the bounds is wrong, or rounding is "
                f"larger than slack {self.slack:g}"
            )
        self._decide(name, rows, made["fooled"], self.falsified)

    def _stage(
        self, name: str, rows: np.ndarray, make: Callable[[], dict[str, Any]]
    ) -> dict[str, Any] | None:
        """A stage on these points, from the store or made now; `None` on no points."""
        self.stages += 1
        if not len(rows):
            return None

        def timed() -> dict[str, Any]:
            started = time.perf_counter()
            return {**make(), "seconds": np.float64(time.perf_counter() - started)}

        made = made_once(self.store, self.stages, rows, timed)
        self.seconds[name] = self.seconds.get(name, 0.0) + float(made["seconds"])
        return made

    def _decide(self, name: str, rows: np.ndarray, mask: np.ndarray, side: np.ndarray) -> None:
        side[rows[mask]] = True
        self.decided_by[rows[mask]] = name

    def _shapes(self, batch_size: int) -> list[int]:
        return bucket_sizes(min(batch_size, len(self.labels)), len(jax.local_devices()))


def _smallest(
    method: Method, threat: Any, logits_fn: LogitsFn, images: Array, labels: Array
) -> tuple[Array, Array]:
    """The smallest certified margin of another class, and the largest in size."""
    found = bounds.margins(logits_fn, images, labels, threat=threat, method=method)
    own = jax.nn.one_hot(labels, found.shape[-1], dtype=bool)
    least = jnp.min(jnp.where(own, jnp.full_like(found, jnp.inf), found), -1)
    return least, jnp.max(jnp.abs(found), -1)


def _fooled(
    attack: Attack, logits_fn: LogitsFn, keys: Array, images: Array, labels: Array
) -> tuple[Array, Array]:
    """Whether the attack's images are misclassified in a separate forward pass, and the images."""
    found = attack(logits_fn, keys, images, labels).images
    _, wrong, _ = clean_batch(False, logits_fn, found, labels, keys)
    return wrong, found

"""A whole trade-off curve as one compiled program, against its runs one after the other."""

import contextlib
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from jaxrobust.experiment import Experiment, Validation, use
from jaxrobust.rows import read_rows
from jaxrobust.training import train, train_many


class ManyRow(NamedTuple):
    """All runs in one form.

    Attributes:
      form: how they were trained.
      runs: how many.
      seconds: of all of them, with compilation, validation and checkpoints.
      ratio: of the seconds to those of the first form.
      loss_difference: the largest difference of a run's loss in its first epoch from its loss in
        the first form.
      accuracy_difference: likewise of its robust accuracy on held-out images at the end.
    """

    form: str
    runs: int
    seconds: float
    ratio: float
    loss_difference: float
    accuracy_difference: float


def many_table(
    *, betas: int = 8, seeds: int = 3, epochs: int = 10, width: int = 8, batch_size: int = 128
) -> list[ManyRow]:
    """TRADES on digits for several beta and seeds: alone, from a cache, and as one program.

    Args:
      betas: how many, from 0.5 upwards, each 1.7 times the one before.
      seeds: of each beta.
      epochs: of each run.
      width: of the network.
      batch_size: of each run.

    Returns:
      A row per form. Every form begins with nothing compiled.
    """
    base = Experiment(
        name="base",
        data=use("digits"),
        model=use("digits_cnn", width=width),
        objective=use("trades", beta=1.0, steps=5),
        threat=use("linf", eps=0.15),
        learning_rate=use("cosine", peak=0.1),
        epochs=epochs,
        batch_size=batch_size,
        validation=Validation(size=240, every=epochs),
    )
    members = [
        replace(base, name=f"{n}-{seed}", seed=seed, objective=_trades(0.5 * 1.7**n))
        for n in range(betas)
        for seed in range(seeds)
    ]
    forms: dict[str, Callable[[list[Any]], Any]] = {
        "one after the other": lambda folders: _alone(members, folders),
        "one after the other, cached": lambda folders: _cached(members, folders),
        "one program, a loop": lambda folders: train_many(members, folders, at_once=1, quiet=True),
        "one program, vmap": lambda folders: train_many(
            members, folders, at_once=len(members), quiet=True
        ),
    }
    rows: list[ManyRow] = []
    expected: Any = None
    for form, run in forms.items():
        with tempfile.TemporaryDirectory() as folder:
            folders = [pathlib.Path(folder) / member.name for member in members]
            jax.clear_caches()
            started = time.perf_counter()
            run(folders)
            seconds = time.perf_counter() - started
            found = np.array([_figures(f) for f in folders])
        expected = found if expected is None else expected
        worst = np.abs(found - expected).max(0).tolist()
        first = rows[0].seconds if rows else seconds
        rows.append(ManyRow(form, len(members), seconds, seconds / first, *worst))
    return rows


def _trades(beta: float) -> Any:
    return use("trades", beta=beta, steps=5)


def _alone(members: list[Experiment], folders: list[pathlib.Path]) -> None:
    for member, folder in zip(members, folders, strict=True):
        train(member, folder, quiet=True)


def _cached(members: list[Experiment], folders: list[pathlib.Path]) -> None:
    with _empty_cache():
        _alone(members, folders)


@contextlib.contextmanager
def _empty_cache() -> Iterator[None]:
    """JAX's persistent cache, in a folder of its own."""
    config: Any = jax.config
    names = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
    before = {name: getattr(config, name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for name, value in zip(names, (folder, True), strict=True):
            config.update(name, value)
        compilation_cache.reset_cache()
        try:
            yield
        finally:
            for name, value in before.items():
                config.update(name, value)
            compilation_cache.reset_cache()


def _figures(folder: pathlib.Path) -> list[float]:
    """Of a run: the loss in its first epoch, the robust accuracy at its end."""
    rows = read_rows(folder / "metrics.jsonl")
    return [rows[0]["loss"], rows[-1]["validation_robust_accuracy"]]

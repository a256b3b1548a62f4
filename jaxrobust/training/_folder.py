"""The folder of a run: whose it is, and who trains in it."""

import contextlib
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxrobust.digests import digest_of_all
from jaxrobust.experiment import (
    Experiment,
    UnknownFieldError,
    from_dict,
    normal,
    search_current_folder,
    sources,
    to_dict,
)
from jaxrobust.files import parse_json
from jaxrobust.locks import held
from jaxrobust.networks import Network
from jaxrobust.processes import from_first
from jaxrobust.rows import read_rows
from jaxrobust.spec import UntrustedError, trusted
from jaxrobust.storage import Folder, check_folder, in_bucket, run_folder, write_whole
from jaxrobust.training._checkpoints import stored_steps

CONFIG, COPY = "config.json", "config.copy.json"
DIGEST = "constants.sha256"  # of a network, such as the bases of a mix: not in checkpoints
DATA_DIGEST = "data.sha256"  # of the training examples
WEIGHTS = "model.safetensors"  # of an exported network, in the place of checkpoints
SOURCES = "sources.json"  # of parts from outside
# Fields of an experiment that its training does not depend on.
LATER = ("evaluation", "evaluators", "published")


class _DamagedError(ValueError):
    """A configuration that is no JSON object."""


@contextlib.contextmanager
def holding(folders: Sequence[epath.Path], *, say: Callable[[str], None]) -> Iterator[None]:
    """Keeps other trainers out of folders; a folder in which nothing was written is removed.

    Of several processes the first one locks. Buckets know no locks.

    Args:
      folders: made if missing.
      say: told where a file system cannot lock.

    Raises:
      FolderInUseError: if another process, or another call of this one, trains there.
      ValueError: if a file stands there.
    """
    with contextlib.ExitStack() as stack:

        def lock() -> None:
            for folder in folders:
                check_folder(folder)
                if not in_bucket(folder):
                    stack.enter_context(held(pathlib.Path(folder), work="training", say=say))

        from_first(lock)
        yield


def begun(workdir: Folder) -> bool:
    """Whether a folder holds results: a checkpoint, a row of metrics, or one of an evaluation.

    A run without any (its first step failed, or compilation did) may be started anew, with
    another configuration too.

    Args:
      workdir: the run's folder, or `gs://bucket/folder`.

    Returns:
      True if there is something to lose.
    """
    folder = run_folder(workdir)
    rows = [folder / name for name in ("metrics.jsonl", "rows.jsonl")]
    return bool(
        stored_steps(folder / "checkpoints")
        or any(path.exists() and read_rows(path) for path in rows)
    )


def check_free(
    workdir: Folder, experiment: Experiment, *, resume: bool, say: Callable[[str], None]
) -> bool:
    """Checks that the experiment may be trained in the folder, and writes nothing.

    Args:
      workdir: the run's folder, or `gs://bucket/folder`.
      experiment: to be trained there.
      resume: whether a run may be there.
      say: told of a damaged configuration, and of a run that gets longer.

    Returns:
      Whether there is a run to continue.

    Raises:
      ValueError: if the folder holds a run and `resume` is not set, one of another
        configuration, or an exported network.
    """
    workdir = run_folder(workdir)
    if (workdir / WEIGHTS).exists():
        raise ValueError(
            f"{workdir} holds an exported network, without the state of its optimizer: start from "
            f"it with --init-from {workdir} in another --workdir"
        )
    if not begun(workdir):
        return False
    try:
        path, values = _stored(workdir, say)
        there = _told(path, lambda: normal(values))
    except _DamagedError as error:
        there = None
        if resume:
            say(f"{error}; it will be written anew, without comparing the settings")
    if not resume:
        name = f"the run {there['name']!r}" if there else "a run"
        raise ValueError(
            f"{workdir} already holds {name}; continue it with --resume or choose another --workdir"
        )
    if there is not None:
        _check_same(workdir, there, experiment, say)
    warn_of_sources(workdir, experiment, say, then="a resumed run then mixes both")
    return True


def _check_same(
    workdir: epath.Path, there: dict[str, Any], experiment: Experiment, say: Callable[[str], None]
) -> None:
    """Refuses other settings of training; `epochs` may grow. Nothing named there is imported."""
    old, new = (
        {name: value for name, value in values.items() if name not in LATER}
        for values in (there, to_dict(experiment))
    )
    grows = isinstance(old.get("epochs"), int) and old["epochs"] < experiment.epochs
    if grows:
        del old["epochs"], new["epochs"]
    differing = [f"{path} {before} -> {after}" for path, before, after in differences(old, new)]
    if differing:
        raise ValueError(
            f"{workdir} holds a run with other settings (old -> new): {', '.join(differing)}; "
            "resume with the old settings (epochs may grow), or choose another --workdir"
        )
    if grows:
        say(
            f"{experiment.name} grows from {there['epochs']} to {experiment.epochs} epochs: the "
            "learning rate and all other schedules are now those of the longer run"
        )


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """The paths, as `--set` takes them, at which two configurations differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            inner = path if key in ("use", "kwargs", "args") else f"{path}.{key}".lstrip(".")
            missing: Any = {"kwargs": {}, "args": []}.get(key, "default")
            yield from differences(old.get(key, missing), new.get(key, missing), inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from differences(before, after, f"{path}.{number}")
    elif old != new:
        yield path, json.dumps(old), json.dumps(new)


def claim(workdir: epath.Path, experiment: Experiment) -> None:
    """Makes the folder this experiment's: writes its configuration, and a copy of it."""
    text = json.dumps(to_dict(experiment), indent=2) + "\n"
    for path in (workdir / CONFIG, _copy(workdir)):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_changed(path, text)
    if experiment.packages():
        _write_changed(
            workdir / SOURCES, json.dumps(sources(experiment.packages()), indent=2) + "\n"
        )


def _write_changed(path: epath.Path, text: str) -> None:
    with contextlib.suppress(OSError):  # missing or unreadable
        if path.read_bytes() == text.encode():
            return
    write_whole(path, text)


def warn_of_sources(
    workdir: epath.Path, experiment: Experiment, say: Callable[[str], None], *, then: str
) -> None:
    """Says which code from outside is not what the run was trained with, and what follows."""
    try:
        before = parse_json((workdir / SOURCES).read_bytes())
    except (OSError, ValueError):  # none, or damaged: it is for information only
        return
    for package, source in (
        sources(experiment.packages()).items() if isinstance(before, dict) else ()
    ):
        if before.get(package, source) != source:
            say(
                f"warning: {package} has changed since {workdir} was last trained "
                f"({before[package]} -> {source}); {then}"
            )


def check_shared(workdir: epath.Path) -> None:
    """Checks that all processes share the run's folder.

    Raises:
      ValueError: if the folder is another one on another machine.
    """
    if not (workdir / "config.json").exists():
        raise ValueError(
            f"workdir must be a folder that all processes share, but process {jax.process_index()} "
            f"sees no config.json in {workdir}"
        )


def read_config(
    workdir: Folder, *, trust: Sequence[str] = (), say: Callable[[str], None] = print
) -> Experiment:
    """The experiment whose run a folder holds.

    Args:
      workdir: the run's folder, or `gs://bucket/folder`.
      trust: top-level packages whose code the configuration may name, besides those of the
        environment variable `JAXROBUST_TRUST`; the current folder is searched for them too.
      say: told if `config.json` is damaged and its copy beside it is used.

    Returns:
      The `Experiment` of its `config.json`.

    Raises:
      UntrustedError: if it names code that is not trusted (a ValueError).
      ValueError: if the folder holds no run, or its configuration cannot be read.
    """
    path, values = _stored(run_folder(workdir), say)
    if trusted(trust):
        search_current_folder()
    return _told(path, lambda: from_dict(values, trust=trust))


def _stored(folder: epath.Path, say: Callable[[str], None]) -> tuple[epath.Path, dict[str, Any]]:
    """The configuration as it is stored, and the file that it was read from."""
    path, copy = folder / CONFIG, _copy(folder)
    if folder.is_file():
        raise ValueError(
            f"{folder} is a file; give the folder of a run, such as runs/{folder.stem}"
        )
    if not folder.exists():
        raise ValueError(f"{folder} holds no run: there is no such folder")
    if not path.exists() and not copy.exists():
        raise ValueError(f"{folder} holds no run: there is no config.json in it")
    try:
        values = _read(path)
    except _DamagedError as error:
        try:
            values = _read(copy)
        except _DamagedError:
            raise error from None
        say(f"{error}; its copy {copy} is used")
        return copy, values
    with contextlib.suppress(_DamagedError):
        changed = [
            f"{where} {old} -> {new}" for where, old, new in differences(_read(copy), values)
        ]
        if changed:
            say(
                f"warning: {path} differs from its copy {copy.name} ({', '.join(changed)}); if you "
                "have not changed it, it is damaged: restore it from the copy"
            )
    return path, values


def _copy(workdir: epath.Path) -> epath.Path:
    """Weights without their configuration are useless, so a copy of it is kept."""
    return workdir / COPY


def _read(path: epath.Path) -> dict[str, Any]:
    try:
        values = parse_json(path.read_bytes())
    except (ValueError, OSError) as error:
        raise _DamagedError(f"{path} is damaged: {error}") from None
    if not isinstance(values, dict):
        raise _DamagedError(f"{path} is damaged: it holds no JSON object")
    return values


def _told(path: epath.Path, make: Callable[[], Any]) -> Any:
    """What is made of a configuration; errors begin with its file."""
    try:
        return make()
    except UnknownFieldError as error:
        raise ValueError(
            f"{path}: {error}; a newer version of jaxrobust wrote it: update jaxrobust"
        ) from None
    except ValueError as error:
        kind = UntrustedError if isinstance(error, UntrustedError) else ValueError
        raise kind(f"{path}: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} is damaged: its values are nested too deeply") from None


def check_constants(workdir: epath.Path, network: Network, *, first: bool = False) -> None:
    """Checks that a network has the constants that a run began with.

    Args:
      workdir: the run's folder.
      network: of the run.
      first: write the digest where there is none.

    Raises:
      ValueError: if they have changed.
    """
    leaves = jax.tree.leaves(network)
    if not leaves:
        return
    found = digest_of_all(np.atleast_1d(jax.device_get(leaf)) for leaf in leaves)
    path = workdir / DIGEST
    if not path.exists():
        if first:
            write_whole(path, found + "\n")
    elif path.read_text().strip() != found:
        raise ValueError(
            f"the bases of {workdir} are not those that it was trained with: their runs or files "
            "have changed; restore them, or train again in another folder"
        )


def check_data(workdir: epath.Path, digest: str, *, resumed: bool) -> None:
    """Checks that a run goes on with the training examples that it began with.

    Args:
      workdir: the run's folder.
      digest: of the examples.
      resumed: whether it goes on; else the digest is written.

    Raises:
      ValueError: if the examples have changed.
    """
    path = workdir / DATA_DIGEST
    if not resumed or not path.exists():
        write_whole(path, digest + "\n")
    elif path.read_bytes().decode(errors="replace").strip() != digest:
        raise ValueError(
            f"the training examples of {workdir} are not those that it began with ({path.name}): "
            "restore them, or train again in another folder; if they are the same, that file is "
            "damaged: delete it"
        )

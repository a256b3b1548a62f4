"""The result of a command in its folder, without clocks: what two runs of it must share."""

import pathlib
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from jaxrobust.digests import digest_of
from jaxrobust.training import Checkpoints, read_rows

# Keys whose values differ between two runs of the same numbers: clocks, and names of files.
DIFFERING = ("second", "time", "provenance", "folder", "evaluated")
# Of rows of metrics, how many runs shared a program: after an error, those at one step do.
SHARED = ("members", "bytes_per_device")
Contents = dict[str, Any]


def of_training(run: pathlib.Path) -> Contents:
    """Every leaf of the last and of the best checkpoint, and the rows of metrics."""
    checkpoints = Checkpoints(run / "checkpoints", warn=lambda line: None)
    steps, best = checkpoints.steps(), checkpoints.best_step()
    if best is None:
        raise ValueError(f"{run} holds no checkpoint")
    last = _leaves(run / "checkpoints" / str(steps[-1]) / "default")
    try:
        leaves = last if best == steps[-1] else _leaves(run / "checkpoints" / str(best) / "default")
    except Exception as error:  # a difference, where the best counts
        leaves = {"unreadable": str(error)}
    return {
        "last": {"step": steps[-1], "leaves": last},
        "best": {"step": best, "leaves": leaves},
        "metrics": [
            {key: value for key, value in row.items() if key not in SHARED}
            for row in _plain(read_rows(run / "metrics.jsonl"))
        ],
    }


def of_tradeoff(run: pathlib.Path) -> Contents:
    """The rows of every member, with the training of each."""
    import json

    members = json.loads((run / "results.json").read_text())["members"]
    folders = sorted(path.parent for path in (run / "members").rglob("metrics.jsonl"))
    trained = {str(folder.relative_to(run)): of_training(folder) for folder in folders}
    return {"members": _plain(members), "trained": trained}


def of_evaluation(run: pathlib.Path) -> Contents:
    """The different rows: every finished command has added one."""
    rows: list[Any] = []
    for row in _plain(read_rows(run / "rows.jsonl")):
        rows += [row] if row not in rows else []
    return {"rows": rows}


def of_autoattack(run: pathlib.Path) -> Contents:
    """The rows, and every mask and image of the report."""
    arrays: Contents = {}
    for file in sorted(run.glob("autoattack/*/adversarial.npz")):
        with np.load(file) as archive:
            arrays |= {f"{file.parent.name}/{name}": digest_of(archive[name]) for name in archive}
    return {"arrays": arrays, **of_evaluation(run)}


def differing(found: Any, expected: Any, path: str = "") -> list[str]:
    """The paths at which two results differ."""
    if isinstance(found, dict) and isinstance(expected, dict):
        names = sorted(found.keys() | expected.keys())
        return [p for n in names for p in differing(found.get(n), expected.get(n), f"{path}.{n}")]
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected, strict=True))
        return [p for i, (a, b) in pairs for p in differing(a, b, f"{path}.{i}")]
    return [] if found == expected else [path.lstrip(".")]


def _leaves(folder: pathlib.Path) -> dict[str, str]:
    """The digest of every array of a checkpoint, read without the code of the library."""
    import jax

    with ocp.PyTreeCheckpointer() as reader:
        held = reader.metadata(folder).item_metadata
        plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), held.tree)
        state = reader.restore(folder, ocp.args.PyTreeRestore(restore_args=plain))
    return {
        jax.tree_util.keystr(path): digest_of(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _plain(value: Any) -> Any:
    """The value without clocks."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not any(word in k for word in DIFFERING)}
        return {key: _plain(inner) for key, inner in kept.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value

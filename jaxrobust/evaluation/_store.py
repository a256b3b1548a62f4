"""Finished work items on disk: written atomically, read back only for the same evaluation."""

import hashlib
import json
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxrobust.digests import digest_of
from jaxrobust.evaluation._identity import Identity, differences
from jaxrobust.evaluation._programs import NUMBERS
from jaxrobust.files import parse_json, replace_text, replacing
from jaxrobust.inputs import InputError
from jaxrobust.processes import from_first, is_first
from jaxrobust.reasons import one_line

ITEM = frozenset({"indices", "fooled", "images", "predictions", "distance", "seconds"})
DAMAGE = (OSError, ValueError, EOFError, KeyError)


class Store:
    """One file per finished work item, and the identity of their evaluation.

    Without a folder nothing is kept.

    Args:
      folder: the folder of the files; created if missing.
      settings: eps, norm, version, attacks, seed and the like: JSON types.
      identity: the identity of network and data.
      needs: names of the arrays that every item has.

    Raises:
      ValueError: if the folder holds items of another evaluation; the message names the
        differences.
    """

    def __init__(
        self,
        folder: pathlib.Path | None,
        settings: dict[str, Any],
        identity: Identity,
        *,
        needs: frozenset[str] = ITEM,
    ) -> None:
        self.folder, self._keeps, self._needs = folder, folder is not None, needs
        self._mark = _mark(settings, identity)
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        there = _read(folder)
        if there is None:
            _write(folder, settings, identity)
            return
        self._mark = _mark(*there)  # as its items have it: an earlier version wrote fewer digests
        # Also a setting that is there alone: a newer version, which knows what it changes.
        found = {
            name: f"{there[0].get(name)!r} there, {settings.get(name)!r} now"
            for name in sorted({*settings, *there[0]})
            if there[0].get(name) != settings.get(name)
        }
        found |= differences(there[1], identity)
        if found:
            details = "; ".join(f"{name}: {detail}" for name, detail in found.items())
            raise InputError(
                f"{folder} holds another evaluation: {', '.join(found)} differ ({details}); "
                "choose another folder, or delete this one"
            )

    def load(self, number: int) -> dict[str, np.ndarray] | None:
        """The arrays of an item, or None if it is not finished (or cannot be read)."""
        if self.folder is None:
            return None
        try:
            path = self._path(number)
            # NumPy would leave the file of a damaged archive open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = dict(archive)
            # Items of earlier versions have no digest of what is in them.
            of, mine = str(arrays.pop("of", "")), f"{self._mark} {number}"
            whole = of in (mine, f"{mine} {_content(arrays)}") and arrays.keys() >= self._needs
            return arrays if whole else None
        except DAMAGE:
            return None
        except Exception as error:  # zipfile's own errors, of a damaged disk
            if type(error).__module__ in ("zipfile", "zlib"):
                return None
            raise

    def save(self, number: int, arrays: dict[str, Any]) -> None:
        """Writes an item under its name only when it is complete.

        If it cannot be written (a full disk), a warning says so and no further item is kept.
        Results so far and the rest of the evaluation are not affected.
        """
        if not self._keeps:
            return
        try:
            with replacing(self._path(number)) as file:
                np.savez(file, of=f"{self._mark} {number} {_content(arrays)}", **arrays)
        except OSError as error:
            self._keeps = False
            warnings.warn(
                f"finished work is no longer kept in {self.folder}: {one_line(error)}; the "
                "evaluation goes on, but cannot be resumed from here",
                stacklevel=2,
            )

    def _path(self, number: int) -> pathlib.Path:
        assert self.folder is not None
        return self.folder / f"item_{number:03d}.npz"


def made_once(
    store: Store | None,
    number: int,
    indices: np.ndarray,
    make: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """An item on the points with these indices: read from the store, or made now and stored."""
    earlier = None if store is None else from_first(lambda: store.load(number))
    if earlier is not None and np.array_equal(earlier["indices"], indices):
        return earlier
    made = {"indices": indices, **make()}
    if store is not None and is_first():
        store.save(number, made)
    return made


def _mark(settings: dict[str, Any], identity: Identity) -> str:
    """The hash of an evaluation, which every item contains."""
    content = json.dumps([settings, identity.digests], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _content(arrays: dict[str, Any]) -> str:
    """The hash of an item's arrays: what was changed in the file is not taken for a result."""
    parts = [f"{name} {digest_of(np.asarray(arrays[name]))}" for name in sorted(arrays)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def model_digest(held: Any, logits: np.ndarray) -> str:
    """A digest of the network's arrays, in any order, and of the shape of its clean logits."""
    arrays = [leaf for leaf in jax.tree.leaves(held) if isinstance(leaf, NUMBERS)]
    whole = "".join(sorted(map(digest_of, arrays)))
    return hashlib.sha256(f"{whole}{np.shape(logits)}".encode()).hexdigest()


def _read(folder: pathlib.Path) -> tuple[dict[str, Any], Identity] | None:
    """Settings and identity of the items in a folder; None where there are none."""
    path, network = folder / "fingerprint.json", folder / "network.npz"
    if not path.exists():
        return None
    try:
        stored = parse_json(path.read_text())
        settings, digests = dict(stored["settings"]), dict(stored["identity"])
        path = network
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            logits, slopes = (arrays[name].astype(np.float64) for name in ("logits", "slopes"))
    except PermissionError:
        raise
    except Exception as error:  # also zipfile's own
        raise InputError(
            f"{path} is damaged or of another version ({type(error).__name__}); choose another "
            f"folder, or delete {folder}"
        ) from error
    return settings, Identity(digests, logits, slopes)


def _write(folder: pathlib.Path, settings: dict[str, Any], identity: Identity) -> None:
    """The arrays first: with `fingerprint.json` the folder counts as claimed."""
    with replacing(folder / "network.npz") as file:
        np.savez_compressed(file, logits=identity.logits, slopes=identity.slopes)
    content = {"settings": settings, "identity": identity.digests}
    replace_text(folder / "fingerprint.json", json.dumps(content, indent=2) + "\n")

"""Finished work items on disk: written whole, read back only for the same evaluation."""

import hashlib
import json
import os
import pathlib
from typing import Any

import jax
import numpy as np


class Store:
    """One file per finished work item, and a fingerprint of what they belong to.

    Without a folder nothing is kept.

    Args:
      folder: where the files live; made if missing.
      fingerprint: of data, model, eps, norm, version, settings and seed.

    Raises:
      ValueError: if the folder holds items of another evaluation; names what differs.
    """

    def __init__(self, folder: pathlib.Path | None, fingerprint: dict[str, Any]) -> None:
        self.folder = folder
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "fingerprint.json"
        if path.exists():
            there = json.loads(path.read_text())
            keys = sorted(there.keys() | fingerprint.keys())
            differing = [k for k in keys if there.get(k) != fingerprint.get(k)]
            if differing:
                raise ValueError(
                    f"{folder} holds another evaluation: {', '.join(differing)} differ "
                    f"({differing[0]}: {there.get(differing[0])!r} there, "
                    f"{fingerprint.get(differing[0])!r} now); choose another folder"
                )
        else:
            _replace(path, json.dumps(fingerprint, indent=2).encode() + b"\n")

    def load(self, number: int) -> dict[str, np.ndarray] | None:
        """The arrays of an item, or None if it is not finished (or cannot be read)."""
        if self.folder is None:
            return None
        try:
            with np.load(self._path(number), allow_pickle=False) as archive:
                return dict(archive)
        except (OSError, ValueError, EOFError, KeyError):
            return None
        except Exception as error:  # zipfile's own errors, of a damaged disk
            if type(error).__module__ in ("zipfile", "zlib"):
                return None
            raise

    def save(self, number: int, arrays: dict[str, Any]) -> None:
        """Writes an item under its name only when it is complete."""
        if self.folder is None:
            return
        path = self._path(number)
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    def _path(self, number: int) -> pathlib.Path:
        assert self.folder is not None
        return self.folder / f"item_{number:03d}.npz"


def _replace(path: pathlib.Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def digest(*arrays: Any) -> str:
    """SHA-256 of arrays: their types, shapes and bytes."""
    total = hashlib.sha256()
    for array in arrays:
        values = np.ascontiguousarray(jax.device_get(array))
        total.update(f"{values.dtype}{values.shape}".encode())
        total.update(values.tobytes())
    return total.hexdigest()


def model_digest(logits_fn: Any, predictions: np.ndarray) -> str:
    """Of a model's parameters, if they can be seen (a callable pytree); else of its predictions
    on the clean images."""
    leaves = jax.tree_util.tree_flatten_with_path(logits_fn)[0]
    if leaves:  # by path and value: a description of the callable has memory addresses in it
        names = "".join(jax.tree_util.keystr(path) for path, _ in leaves)
        return digest(*(leaf for _, leaf in leaves), np.frombuffer(names.encode(), np.uint8))
    return digest(predictions)

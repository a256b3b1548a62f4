"""Hashes of what results were computed from: arrays, files and folders."""

import hashlib
import pathlib
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np


def digest_of(array: Any) -> str:
    """SHA-256 of an array's type, shape and bytes; of a key's data.

    Args:
      array: a NumPy or JAX array, a number, or keys.

    Returns:
      64 hexadecimal digits, the same in every process.

    Example:
      >>> import numpy as np
      >>> from jaxrobust.digests import digest_of
      >>> digest_of(np.arange(3)) == digest_of(np.arange(3.0))
      False
    """
    return digest_of_all([array])


def digest_of_all(arrays: Iterable[Any]) -> str:
    """SHA-256 of several arrays in their order, each as in `digest_of`.

    Args:
      arrays: NumPy or JAX arrays, numbers, or keys.

    Returns:
      64 hexadecimal digits, the same in every process.

    Example:
      >>> import numpy as np
      >>> from jaxrobust.digests import digest_of, digest_of_all
      >>> digest_of_all([np.arange(3)]) == digest_of(np.arange(3))
      True
    """
    found = hashlib.sha256()
    for array in arrays:
        if isinstance(array, jax.Array) and jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
            array = jax.random.key_data(array)
        values = np.ascontiguousarray(jax.device_get(array))
        found.update(f"{values.dtype}{np.shape(array)}".encode())
        # A view: images may be gigabytes, and some types (bfloat16) export no buffer of their own.
        found.update(values.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def digest_of_files(path: pathlib.Path) -> str:
    """SHA-256 of a file, or of a folder: of the names and contents of all files in it.

    Args:
      path: on a disk.

    Returns:
      64 hexadecimal digits; where there is no such file, those of nothing.

    Raises:
      OSError: if a file cannot be read.
    """
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    found = hashlib.sha256()
    for file in files:
        name = str(file.relative_to(path)) if file != path else ""
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        found.update(f"{name} {content}\n".encode())
    return found.hexdigest()

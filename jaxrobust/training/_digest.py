"""What tells arrays from others: of constants and of training data, which are in no checkpoint."""

import hashlib
from collections.abc import Iterable

import numpy as np


def digest_of(arrays: Iterable[np.ndarray]) -> str:
    """The SHA-256 of arrays with their types and shapes."""
    found = hashlib.sha256()
    for array in arrays:
        values = np.ascontiguousarray(array)
        found.update(f"{values.dtype}{values.shape}".encode())
        found.update(values.reshape(-1).view(np.uint8).data)
    return found.hexdigest()

"""The identity of an evaluation, so that finished work is reused only for the same evaluation."""

from typing import Any, NamedTuple

import numpy as np

from jaxrobust.digests import digest_of

# Of the largest value. Another batch size or number of devices changes the rounding, not more.
ROUNDING = 1e-4
NETWORK = ("arrays", "program", "derivatives")


class Identity(NamedTuple):
    """The network, by its content and its behaviour, and the data; no names or addresses.

    Attributes:
      digests: of the network's arrays (of keys their data), of what it computes and of its
        derivatives (traced programs, which another version of JAX may change), of images and of
        labels.
      logits: `[n, k]` of the clean images.
      slopes: `[m, 2]`, derivatives of the logits at some of them.
    """

    digests: dict[str, Any]
    logits: np.ndarray
    slopes: np.ndarray


def identity_of(
    network: dict[str, str],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    logits: np.ndarray,
    slopes: np.ndarray,
) -> Identity:
    """The identity on some data of a network, given digests of it by the names in `NETWORK`."""
    digests = {**network, "images": digest_of(images), "labels": digest_of(labels)}
    return Identity(digests, np.asarray(logits), np.asarray(slopes))


def differences(there: Identity, now: Identity) -> dict[str, str]:
    """What differs between two identities: "images", "labels", "model", with details."""
    found = {
        what: "other ones"
        for what in ("images", "labels")
        if there.digests.get(what) != now.digests[what]
    }
    # Folders of earlier versions say nothing of derivatives.
    known = {"derivatives": now.digests["derivatives"], **there.digests}
    model = [f"other {what}" for what in NETWORK if known.get(what) != now.digests[what]]
    model += _apart("clean logits", there.logits, now.logits)
    model += _apart("gradients at clean images", there.slopes, now.slopes)
    return found | ({"model": ", ".join(model)} if model else {})


def _apart(what: str, old: np.ndarray, new: np.ndarray) -> list[str]:
    """The difference of two measurements if it exceeds rounding."""
    if old.shape != new.shape:
        return [f"{what} of shape {old.shape} there, {new.shape} now"]
    old, new = old.astype(np.float64), new.astype(np.float64)
    # Of a row's usual size: a masked class of -1e9 says nothing of the others.
    size = np.median(np.where(np.isfinite(old), np.abs(old), 0), -1, keepdims=True)
    allowed = ROUNDING * np.maximum(size, size.max(initial=0) * 1e-2)
    same = np.isclose(new, old, rtol=1e-6, atol=allowed, equal_nan=True)
    if same.all():
        return []
    with np.errstate(invalid="ignore"):
        largest = np.nanmax(np.abs(new - old), initial=0, where=~same)
    return [f"{what} by up to {largest:.3g}, of a usual size of {size.max(initial=0):.3g}"]

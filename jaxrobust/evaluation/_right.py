"""The masks of correctly classified images, as short text in rows."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrobust.inputs import InputError, as_array


def packed_right(masks: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Masks over the images of one evaluation as plain JSON types.

    Args:
      masks: by column, `[n]` bool.

    Returns:
      The number of "images", and under "columns" one bit per image, in base64.

    Raises:
      InputError: for other arrays, of several lengths, or none.

    Example:
      >>> import numpy as np
      >>> from jaxrobust import evaluation
      >>> packed = evaluation.packed_right({"clean": np.arange(9) < 8})
      >>> packed, evaluation.unpacked_right(packed)["clean"].tolist()[-2:]
      ({'images': 9, 'columns': {'clean': '/wA='}}, [True, False])
    """
    arrays = {name: np.asarray(as_array(mask, name=name)) for name, mask in masks.items()}
    shapes = {mask.shape for mask in arrays.values()}
    bools = all(mask.dtype == bool and mask.ndim == 1 for mask in arrays.values())
    if not bools or len(shapes) != 1:
        found = ", ".join(f"{mask.dtype} {mask.shape}" for mask in arrays.values()) or "none"
        raise InputError(f"masks must be bool [n] of one length, at least one of them; got {found}")
    columns = {
        name: base64.b64encode(np.packbits(mask).tobytes()).decode()
        for name, mask in arrays.items()
    }
    return {"images": len(next(iter(arrays.values()))), "columns": columns}


def unpacked_right(packed: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The masks that `packed_right` wrote.

    Args:
      packed: the result of `packed_right`.

    Returns:
      By column, `[n]` bool.

    Raises:
      InputError: if this is not a result of `packed_right`.
    """
    try:
        count, found = int(packed["images"]), {}
        for name, text in packed["columns"].items():
            bits = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
            if count < 1 or len(bits) != -(-count // 8):
                raise ValueError(f"{name} has {len(bits)} bytes for {count} images")
            found[name] = np.unpackbits(bits)[:count].astype(bool)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"packed holds no masks of images: {error}") from None
    return found

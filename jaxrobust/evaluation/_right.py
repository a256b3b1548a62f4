"""The masks of correctly classified images, as short text in rows."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrobust.inputs import InputError


def packed_right(masks: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Masks over the images of one evaluation as plain JSON types.

    Args:
      masks: by column, `[n]` bool.

    Returns:
      The number of "images", and under "columns" one bit per image, in base64.

    Example:
      >>> import numpy as np
      >>> from jaxrobust import evaluation
      >>> packed = evaluation.packed_right({"clean": np.arange(9) < 8})
      >>> packed, evaluation.unpacked_right(packed)["clean"].tolist()[-2:]
      ({'images': 9, 'columns': {'clean': '/wA='}}, [True, False])
    """
    columns = {
        name: base64.b64encode(np.packbits(np.asarray(mask, bool)).tobytes()).decode()
        for name, mask in masks.items()
    }
    return {"images": len(next(iter(masks.values()))), "columns": columns}


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
            found[name] = np.unpackbits(bits)[:count].astype(bool)
            if len(found[name]) != count:
                raise ValueError(f"{name} has {len(found[name])} of {count} images")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"packed holds no masks of images: {error}") from None
    return found

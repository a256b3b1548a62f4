"""The values that the numbers and words of objectives may have, by name: one word, one meaning."""

from dataclasses import fields
from typing import Any

import jax
import numpy as np

from jaxrobust.inputs import InputError, as_choice, as_count, as_number

COUNTS = {"steps": 1, "copies": 1, "every": 1, "reset": 1, "restarts": 1}
ANY_STATISTICS = ("running", "batch", "update")
NOT_NEGATIVE = (
    *("beta", "clip", "tau", "step_size", "bce", "ce", "product", "clean_scale"),
    *("noise", "alpha", "gamma", "attack_beta", "h", "lbd", "step_sizes"),
    *("relative_step", "attack_scale"),
)
POSITIVE = ("temperature",)
SHARES = ("label_smoothing", "weight", "momentum", "min_mask", "max_mask", "kappa", "shrink")
WORDS = {
    "attack_statistics": ("running", "batch"),
    "start": ("uniform", "gaussian", "gaussian_in_box"),
    "attack_target": ("clean", "label"),
    "kind": ("tanh", "sigmoid", "discrete"),
}


def check_ranges(objective: Any, **words: tuple[str, ...]) -> None:
    """Refuses numbers and words of an objective that cannot be meant, such as a negative beta.

    JAX also makes objectives of placeholders and tracers; what is no number yet is not looked at.

    Args:
      objective: a dataclass.
      **words: choices that are not those of `WORDS`, by field.

    Raises:
      InputError: naming the field, its value and what would be right.
    """
    for field in fields(objective):
        name, value = field.name, getattr(objective, field.name)
        if name in COUNTS:
            as_count(value, name=name, least=COUNTS[name])
        elif name in WORDS or name in words:
            as_choice(value, name=name, choices=words.get(name, WORDS.get(name, ())))
        elif not _is_numbers(value):
            continue
        elif name in SHARES or field.metadata.get("share"):
            as_number(value, name=name, low=0, high=1)
        elif name in NOT_NEGATIVE:
            for number in jax.tree.leaves(value):
                as_number(number, name=name, low=0)
        elif name in POSITIVE:
            as_number(value, name=name, low=0, positive=True)
        elif name == "clip_loss" and not 0 <= value < 1:
            raise InputError(f"clip_loss must be in [0, 1), got {value}")
        elif name == "clean_passes" and value not in (1, 2):
            raise InputError(f"clean_passes must be 1 or 2, got {value}")
        elif name == "lam":
            as_number(value, name=name, infinite=True)


def _is_numbers(value: Any) -> bool:
    numbers = (int, float, np.ndarray, np.generic, jax.Array)
    leaves = jax.tree.leaves(value)
    return bool(leaves) and all(
        isinstance(leaf, numbers) and not isinstance(leaf, bool) for leaf in leaves
    )

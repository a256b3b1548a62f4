"""The values that the numbers and words of objectives may have, by name: one word, one meaning."""

from dataclasses import fields
from typing import Any

import jax
import numpy as np

from jaxrobust.inputs import as_choice, as_count, as_flag, as_number, check_number

# What users may mean by a number; JAX's placeholders are none of these.
NUMBERS = (bool, int, float, complex, str, bytes, np.ndarray, np.generic, jax.Array)

COUNTS = {"steps": 1, "copies": 1, "every": 1, "reset": 1, "restarts": 1}
ANY_STATISTICS = ("running", "batch", "update")
NOT_NEGATIVE = (
    *("beta", "clip", "tau", "step_size", "bce", "ce", "product", "clean_scale"),
    *("noise", "alpha", "gamma", "attack_beta", "h", "lbd", "lam", "step_sizes"),
    *("relative_step", "attack_scale"),
)
POSITIVE = ("temperature",)
SHARES = ("label_smoothing", "weight", "momentum", "min_mask", "max_mask", "kappa")
POSITIVE_SHARES = ("shrink",)
# What some objectives mean by a word that has another range elsewhere, in the field's metadata.
SHARE, SHIFT, DIVISOR = {"range": "share"}, {"range": "shift"}, {"range": "divisor"}
FLAGS = ("clip_clean",)
WORDS = {
    "attack_statistics": ("running", "batch"),
    "start": ("uniform", "gaussian", "gaussian_in_box"),
    "attack_target": ("clean", "label"),
    "kind": ("tanh", "sigmoid", "discrete"),
}


def check_ranges(objective: Any, **words: tuple[str, ...]) -> None:
    """Refuses numbers and words of an objective that cannot be meant, such as a negative beta.

    JAX also makes objectives of placeholders and tracers; what is no number yet is not looked at.
    Their shapes are checked where they are used, because several runs are one objective whose
    numbers are stacked.

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
        elif name == "clean_passes":
            as_count(value, name=name, most=2)
        elif name in FLAGS:
            as_flag(value, name=name)
        elif name in ("distance", "norms"):  # the objectives' own checks
            continue
        elif field.metadata.get("static"):
            _check(name, value, None, static=True)
        else:
            for leaf in jax.tree.leaves(value):
                if isinstance(leaf, NUMBERS):
                    _check(name, leaf, field.metadata.get("range"))


def _check(name: str, value: Any, meaning: str | None, *, static: bool = False) -> None:
    """Refuses a number that is out of the range of its word."""
    lead = () if static else None
    if meaning == "shift":
        as_number(value, name=name, infinite=True)
    elif meaning == "divisor" or name in POSITIVE:
        as_number(value, name=name, low=0, positive=True)
    elif meaning == "share" or name in SHARES:
        as_number(value, name=name, low=0, high=1, lead=lead)
    elif name in POSITIVE_SHARES:
        as_number(value, name=name, low=0, high=1, positive=True)
    elif name in NOT_NEGATIVE:
        as_number(value, name=name, low=0)
    elif name == "clip_loss":
        check_number(value, "clip_loss must be in [0, 1),", low=0, high=float(np.nextafter(1, 0)))
        as_number(value, name=name, lead=lead)

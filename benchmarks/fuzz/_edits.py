"""Edits of a JSON text that leave it valid JSON: bytes alone rarely do."""

import copy
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

STRUCTURED = 32  # first bytes below this are no text: the others choose edits of a seed
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 10**9, 10**30, 0.5, -0.0, 1e308, "nan", "inf", "", "a", "../a",
    "os:system", "member:a", "trades", "a" * 300, "\ud800", [], {}, [[]], [1, 2], {"a": 1},
    {"use": "os:system", "args": ["true"]}, {"use": "linf", "kwargs": {"eps": -1}}, [None],
)  # fmt: skip


def edited(content: bytes, seeds: list[pathlib.Path], choose: Callable[[int], int]) -> bytes:
    """A seed after some edits, each of which replaces, removes, doubles or renames a value.

    Args:
      content: the fuzzer's bytes; returned as they are if they are meant as text.
      seeds: files of valid JSON, or of JSON lines.
      choose: draws a number below the given one from the fuzzer's bytes.

    Returns:
      The bytes of a file.
    """
    if not content or content[0] >= STRUCTURED:
        return content
    text = seeds[choose(len(seeds))].read_text()
    value = json.loads(text.splitlines()[0] if text.count("\n") == 1 else text)
    for _ in range(1 + choose(4)):
        places = list(_places(value))
        if not places:
            break
        owner, key = places[choose(len(places))]
        kind = choose(4)
        if kind == 0 and isinstance(owner, dict):
            owner[str(VALUES[choose(len(VALUES))])] = owner.pop(key)
        elif kind == 1:
            del owner[key]
        elif kind == 2 and isinstance(owner, list):
            owner.append(copy.deepcopy(owner[key]))
        else:
            owner[key] = copy.deepcopy(VALUES[choose(len(VALUES))])
    return json.dumps(value).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a value with each of its keys."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])

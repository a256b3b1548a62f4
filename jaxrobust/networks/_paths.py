"""Leaves by their path, as nested dicts with string keys: what checkpoints hold and restore.

Structures are rebuilt by path. Orbax returns integer keys as strings, and "10" sorts before "2".
"""

from collections.abc import Iterable
from typing import Any

import jax


def names_of(path: Iterable[Any]) -> tuple[str, ...]:
    """A path of `jax.tree_util` as strings."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def nested(leaves: Iterable[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    """A nested dict of leaves by path."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves:
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = leaf
    return tree


def leaf_at(tree: Any, path: Iterable[str]) -> Any:
    """The leaf at a path of a nested dict."""
    for name in path:
        tree = tree[name]
    return tree


def like(new: Any, old: Any) -> Any:
    """`new` in the types of `old`, none of them weak, as none is after restoring."""
    return jax.tree.map(lambda n, o: jax.lax.convert_element_type(n, o.dtype), new, old)

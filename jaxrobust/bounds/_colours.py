"""Neurons of a convolutional network that share a row, because they see different pixels.

The row of a neuron is 0 outside of its receptive field. Neurons of one channel that are far enough
apart have disjoint fields in every layer, so one backward pass serves all of them: their rows are
added, and each neuron sums the terms of its own field. The neurons of one pass have one colour.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.bounds._graph import Graph
from jaxrobust.bounds._rule import Known, Node

SAME_PLACE = frozenset(
    ("add", "add_any", "sub", "neg", "mul", "div", "max", "min", "select_n", "convert_element_type")
)
WORTHWHILE = 0.7  # the share of the rows that must be left, at most
AXES = (1, 2)  # of `[1, h, w, c]`


class Field(NamedTuple):
    """What the neuron at place p sees along an axis: places `step p + low` to `step p + high`.

    Attributes:
      step: between neighbours.
      low: first place of neuron 0.
      high: last place of neuron 0.
    """

    step: int
    low: int
    high: int


Fields = Mapping[int, tuple[Field, ...]]


class Colours(NamedTuple):
    """How the neurons of a variable are coloured.

    Attributes:
      gaps: along both axes, from a neuron to the next of its colour.
      fields: what a neuron sees of each variable before it, along both axes.
      sizes: `(h, w, c)` of the variable.
    """

    gaps: tuple[int, int]
    fields: Fields
    sizes: tuple[int, int, int]

    @property
    def number(self) -> int:
        """Number of colours."""
        return math.prod(self.gaps)

    @property
    def each(self) -> tuple[int, int]:
        """Neurons of a colour along both axes."""
        return tuple(-(-n // g) for n, g in zip(self.sizes, self.gaps, strict=False))  # type: ignore[return-value]

    def rows(self, colour: Array, dtype: object) -> Array:
        """`[c, 1, h, w, c]`: for each channel the neurons of a colour."""
        h, w, c = self.sizes
        masks = [
            (jnp.arange(n) % gap == own).astype(dtype)  # type: ignore[arg-type]
            for n, gap, own in zip((h, w), self.gaps, self._own(colour), strict=True)
        ]
        places = masks[0][:, None] * masks[1][None]
        return jnp.eye(c, dtype=places.dtype)[:, None, None, None] * places[None, None, :, :, None]

    def totals(self, terms: Array, variable: int, colour: Array) -> Array:
        """Terms `[s, 1, h, w, c]` of a variable -> their sums for each neuron, `[s, *each]`."""
        found = jnp.sum(terms, (1, 4))
        owners = zip(self.fields[variable], self.gaps, self.each, self._own(colour), strict=True)
        for axis, (field, gap, count, own) in enumerate(owners, start=1):
            place = jnp.arange(found.shape[axis]) - field.step * own - field.low
            owner = jax.nn.one_hot(place // (field.step * gap), count, dtype=found.dtype)
            found = jnp.moveaxis(jnp.tensordot(found, owner, (axis, 0)), -1, axis)
        return found

    def uncoloured(self, found: Array) -> Array:
        """`[colours, s, *each]` -> `[s, h, w]`."""
        (a, b), (m, n) = self.gaps, self.each
        split = found.reshape(a, b, -1, m, n).transpose(2, 3, 0, 4, 1)
        return split.reshape(-1, m * a, n * b)[:, : self.sizes[0], : self.sizes[1]]

    def _own(self, colour: Array) -> tuple[Array, Array]:
        """Place of a colour's first neuron."""
        return colour // self.gaps[1], colour % self.gaps[1]


def colours_of(graph: Graph, at: int) -> Colours | None:
    """How the neurons of a variable can be coloured; `None` if a row each is as good."""
    shape = graph.types[at].shape
    fields = _fields(graph, at) if len(shape) == 4 and shape[0] == 1 else None
    if fields is None:
        return None
    gaps = []
    for axis, size in enumerate(shape[1:3]):
        seen = [field[axis] for field in fields.values()]
        gap = max((field.high - field.low) // field.step + 1 for field in seen)
        gaps.append(min(gap, size))
    colours = Colours((gaps[0], gaps[1]), fields, tuple(shape[1:]))
    return colours if colours.number <= WORTHWHILE * shape[1] * shape[2] else None


def _fields(graph: Graph, at: int) -> Fields | None:
    """Of all variables before one; `None` if an operation does not keep places."""
    found = {at: (Field(1, 0, 0),) * len(AXES)}
    for node in reversed(graph.nodes):
        if node.out not in found:
            continue
        for variable in node.variables:
            seen = _through(node, graph.types[variable].shape, found[node.out])
            if seen is None:
                return None
            joined = [_joined(*pair) for pair in zip(found.get(variable, seen), seen, strict=True)]
            if None in joined:
                return None
            found[variable] = tuple(field for field in joined if field is not None)
    return found


def _joined(one: Field, other: Field) -> Field | None:
    """Both fields, for neurons that see a variable on two ways."""
    if one.step != other.step:
        return None
    return Field(one.step, min(one.low, other.low), max(one.high, other.high))


def _through(
    node: Node, shape: tuple[int, ...], fields: tuple[Field, ...]
) -> tuple[Field, ...] | None:
    """What is seen of an operand, from what is seen of the result."""
    if len(shape) != 4 or len(node.shape) != 4:
        return None
    if node.rule.elementwise or node.name in SAME_PLACE:
        return fields if shape == node.shape else None
    windows = _windows(node)
    if windows is None:
        return None
    return tuple(
        Field(
            stride * field.step,
            stride * field.low - before,
            stride * field.high - before + (size - 1) * hole,
        )
        for field, (size, stride, hole, before) in zip(fields, windows, strict=True)
    )


def _windows(node: Node) -> list[tuple[int, int, int, int]] | None:
    """Size, stride, dilation and padding before, along both axes."""
    params = node.params
    if node.name == "conv_general_dilated":
        axes, kernel = params["dimension_numbers"], node.operands[1]
        places = axes.lhs_spec[2:], axes.out_spec[2:]
        plain = places == (AXES, AXES) and tuple(params["lhs_dilation"]) == (1, 1)
        if not plain or not isinstance(kernel, Known) or params["batch_group_count"] != 1:
            return None
        sizes = [kernel.value.shape[i] for i in axes.rhs_spec[2:]]
        before = [low for low, _ in params["padding"]]
        return list(
            zip(sizes, params["window_strides"], params["rhs_dilation"], before, strict=True)
        )
    if node.name not in ("reduce_window_sum", "reduce_window_max"):
        return None
    names = ("window_dimensions", "window_strides", "window_dilation")
    sizes, strides, holes = (params[name] for name in names)
    if sizes[0] != 1 or sizes[3] != 1 or any(d != 1 for d in params["base_dilation"]):
        return None
    padding = [low for low, _ in params["padding"]]
    return [(sizes[i], strides[i], holes[i], padding[i]) for i in AXES]

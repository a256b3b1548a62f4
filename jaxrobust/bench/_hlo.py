"""Compiled programs read from their text: instructions, and computations made of them."""

import math
import re
from typing import NamedTuple

ELEMENT_BITS = {"pred": 8, "bf16": 16, "f16": 16, "tf32": 32} | {
    f"{kind}{bits}": bits for kind in "fsuc" for bits in (2, 4, 8, 16, 32, 64, 128)
}


class Array(NamedTuple):
    """An array that an instruction makes.

    Attributes:
      dtype: such as "f32".
      shape: its sizes.
      on_chip: it lies in memory of the chip itself, such as VMEM.
    """

    dtype: str
    shape: tuple[int, ...]
    on_chip: bool

    @property
    def bytes(self) -> int:
        """Its size without the padding of its layout."""
        return math.prod(self.shape) * ELEMENT_BITS.get(self.dtype, 0) // 8


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
      name: unique in its computation.
      opcode: such as "convolution".
      arrays: what it makes; several for a tuple.
      operands: names of instructions.
      attributes: the text after the operands.
      root: it is the result of its computation.
      literal: the text between the parentheses.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    root: bool
    literal: str

    def attribute(self, pattern: str) -> str:
        """The first group of `pattern` in the attributes; empty where it is not there."""
        found = re.search(pattern, self.attributes)
        return found.group(1) if found else ""

    @property
    def bytes(self) -> int:
        """Of what it makes, outside of the chip."""
        return sum(array.bytes for array in self.arrays if not array.on_chip)


Computation = dict[str, Instruction]
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_START = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")


def read_program(text: str) -> tuple[str, dict[str, Computation]]:
    """The computations of a compiled program.

    Args:
      text: of `compiled.as_text()`.

    Returns:
      The entry's name, and the computations by name; instructions in their order.

    Raises:
      ValueError: if there is no entry computation.
    """
    entry, current = "", None
    computations: dict[str, Computation] = {}
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = computations.setdefault(header.group(2), {})
            entry = header.group(2) if header.group(1) else entry
        elif current is not None and (start := _START.match(line)):
            instruction = _instruction(start, line)
            current[instruction.name] = instruction
    if not entry:
        raise ValueError("the program's text has no entry computation")
    return entry, computations


def _instruction(start: re.Match, line: str) -> Instruction:
    rest = re.sub(r"/\*.*?\*/", "", line[start.end() :])
    made, rest = _balanced(rest) if rest[0] == "(" else rest.split(" ", 1)
    opcode, rest = rest.lstrip().split("(", 1)
    literal, attributes = _balanced("(" + rest)
    arrays = tuple(_array(*found.groups()) for found in _ARRAY.finditer(made))
    return Instruction(
        name=start.group(2),
        opcode=opcode,
        arrays=arrays,
        operands=tuple(re.findall(r"%([\w.\-]+)", literal)),
        attributes=attributes,
        root=bool(start.group(1)),
        literal=literal[1:-1],
    )


def _array(dtype: str, shape: str, layout: str | None) -> Array:
    sizes = tuple(int(size) for size in shape.split(",") if size)
    return Array(dtype, sizes, bool(re.search(r"S\([1-9]", layout or "")))


def _balanced(text: str) -> tuple[str, str]:
    """Text split behind the parenthesis that closes its first one."""
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return text[: place + 1], text[place + 1 :]
    raise ValueError(f"unbalanced parentheses: {text[:80]}")


def matrix_flops(instruction: Instruction, computation: Computation) -> int:
    """Multiplications and additions of a convolution or dot product; 0 for all others.

    Products with padding and with the holes of dilated inputs are not counted.
    """
    if instruction.opcode == "dot":
        left = computation[instruction.operands[0]].arrays[0].shape
        axes = [int(n) for n in instruction.attribute(r"lhs_contracting_dims=\{([\d,]*)\}").split(",") if n]  # fmt: skip  # noqa: E501
        return 2 * math.prod(instruction.arrays[0].shape) * math.prod(left[a] for a in axes)
    if instruction.opcode != "convolution":
        return 0
    image, kernel = (computation[name].arrays[0].shape for name in instruction.operands[:2])
    labels = instruction.attribute(r"dim_labels=(\S+?)(?:,|$)")
    image_labels, kernel_labels, out_labels = re.split("_|->", labels)
    out = instruction.arrays[0].shape
    flops = 2 * out[out_labels.index("b")] * out[out_labels.index("f")]
    flops *= kernel[kernel_labels.index("i")]
    window = dict(re.findall(r"(\w+)=(\S+)", instruction.attribute(r"window=\{([^}]*)\}")))
    space = [label for label in sorted(image_labels) if label.isdigit()]

    def per_axis(name: str, default: str) -> list[str]:
        return window[name].split("x") if name in window else [default] * len(space)

    for place, label in enumerate(space):
        low = int(per_axis("pad", "0_0")[place].split("_")[0])
        flops *= _products(
            image[image_labels.index(label)],
            kernel[kernel_labels.index(label)],
            out[out_labels.index(label)],
            stride=int(per_axis("stride", "1")[place]),
            low=low,
            holes=int(per_axis("lhs_dilate", "1")[place]),
            spread=int(per_axis("rhs_dilate", "1")[place]),
        )
    return flops // int(instruction.attribute(r"batch_group_count=(\d+)") or 1)


def _products(
    size: int, kernel: int, out: int, *, stride: int, low: int, holes: int, spread: int
) -> int:
    """Pairs of a place of the output and one of the kernel that meet an input, along one axis."""
    last = (size - 1) * holes
    places = (o * stride + k * spread - low for o in range(out) for k in range(kernel))
    return sum(0 <= place <= last and place % holes == 0 for place in places)

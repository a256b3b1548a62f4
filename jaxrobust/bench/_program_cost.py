"""What a compiled program does per device: arithmetic, memory traffic, communication.

XLA's own cost analysis counts the body of a loop once, however often it runs. An attack is a loop.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from jaxrobust.bench._hlo import Computation, Instruction, matrix_flops, read_program

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
# They move nothing: other names for what is there, or places without content.
FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "conditional"}
FREE |= {"call", "after-all", "partition-id", "replica-id", "iota", "opt-barrier"}
FREE_CALLS = ("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound")
READERS = ("dynamic-slice", "gather", "slice")


class Cost(NamedTuple):
    """Of one device, for one execution of the program.

    Attributes:
      matrix_flops: multiplications and additions of convolutions and dot products.
      memory_bytes: read from and written to the memory outside of the chip.
      collectives: `(kind, inside a loop)` -> number of executions.
      collective_bytes: what the collectives hand out.
      loops: how often each loop's body runs, in the program's order.
      unknown_loops: loops whose length is not in the program; counted once.
    """

    matrix_flops: int = 0
    memory_bytes: int = 0
    collectives: Counter[tuple[str, bool]] = Counter()  # noqa: RUF012
    collective_bytes: int = 0
    loops: tuple[int, ...] = ()
    unknown_loops: int = 0

    def plus(self, other: "Cost", times: int = 1) -> "Cost":
        """This cost and that of another part that runs `times` times."""
        more = Counter({kind: n * times for kind, n in other.collectives.items()})
        return Cost(
            self.matrix_flops + times * other.matrix_flops,
            self.memory_bytes + times * other.memory_bytes,
            self.collectives + more,
            self.collective_bytes + times * other.collective_bytes,
            self.loops + other.loops,
            self.unknown_loops + other.unknown_loops,
        )

    def in_loop(self) -> "Cost":
        """The same, its collectives counted as inside a loop."""
        inside: Counter[tuple[str, bool]] = Counter()
        for (kind, _), count in self.collectives.items():
            inside[kind, True] += count
        return self._replace(collectives=inside)


def program_cost(text: str) -> Cost:
    """The cost of a compiled program, with the bodies of loops as often as they run.

    Args:
      text: of `compiled.as_text()`, of any backend.

    Returns:
      `Cost`. Padding of layouts is not counted, and of gathers and slices what they take.
    """
    entry, computations = read_program(text)
    done: dict[str, Cost] = {}

    def cost_of(name: str) -> Cost:
        if name not in done:
            total = Cost()
            for instruction in computations[name].values():
                total = total.plus(_cost(instruction, computations[name], computations, cost_of))
            done[name] = total
        return done[name]

    return cost_of(entry)


def _cost(
    instruction: Instruction,
    computation: Computation,
    computations: dict[str, Computation],
    cost_of: Callable[[str], Cost],
) -> Cost:
    opcode = instruction.opcode
    if opcode == "while":
        body = instruction.attribute(r"body=%?([\w.\-]+)")
        trips = _trips(instruction, computations)
        inside = Cost(loops=(trips or 1,), unknown_loops=trips is None)
        return inside.plus(cost_of(body).in_loop(), trips or 1)
    if opcode == "conditional":
        names = instruction.attribute(r"branch_computations=\{([^}]*)\}")
        names = names or ",".join(re.findall(r"(?:true|false)_computation=(%?[\w.\-]+)", instruction.attributes))  # fmt: skip  # noqa: E501
        branches = [cost_of(name.strip().lstrip("%")) for name in names.split(",")]
        return max(branches, key=lambda cost: (cost.matrix_flops, cost.memory_bytes))
    called = instruction.attribute(r"(?:calls|to_apply)=%?([\w.\-]+)")
    if opcode == "call":
        return cost_of(called)
    flops = matrix_flops(instruction, computation)
    if opcode == "fusion":
        flops += _fused_flops(computations[called], computations)
    traffic = _traffic(instruction, computation, computations)
    kind = opcode.removesuffix("-start")
    if kind in COLLECTIVES:
        arrays = instruction.arrays
        if opcode.endswith("-start") and kind != "all-reduce":
            arrays = arrays[len(arrays) // 2 :]  # the first half are its operands
        moved = sum(array.bytes for array in arrays)
        return Cost(flops, traffic, Counter({(kind, False): 1}), moved)
    return Cost(flops, traffic)


def _trips(instruction: Instruction, computations: dict[str, Computation]) -> int | None:
    """How often a loop's body runs, where it counts from 0 up to a constant."""
    known = instruction.attribute(r'"known_trip_count":\{"n":"(\d+)"')
    if known:
        return int(known)
    condition = computations[instruction.attribute(r"condition=%?([\w.\-]+)")]
    root = next(i for i in condition.values() if i.root)
    counters = [condition[name] for name in root.operands]
    if root.opcode == "fusion":  # the comparison itself may be fused, its constant within
        inside = computations[root.attribute(r"calls=%?([\w.\-]+)")]
        root = next(i for i in inside.values() if i.root)
        counters += [i for i in inside.values() if i.opcode == "constant"]
    ends = [i for i in counters if i.opcode == "constant"]
    counters = [i for i in counters if i.opcode == "get-tuple-element"]
    simple = root.opcode == "compare" and "direction=LT" in root.attributes
    if not simple or len(ends) != 1 or len(counters) != 1:
        return None
    (counter,) = counters[0].arrays
    return int(ends[0].literal) if counter.dtype in ("s32", "s64") and not counter.shape else None


def _fused_flops(computation: Computation, computations: dict[str, Computation]) -> int:
    total = 0
    for instruction in computation.values():
        total += matrix_flops(instruction, computation)
        if instruction.opcode == "fusion":
            called = instruction.attribute(r"calls=%?([\w.\-]+)")
            total += _fused_flops(computations[called], computations)
    return total


def _traffic(
    instruction: Instruction, computation: Computation, computations: dict[str, Computation]
) -> int:
    """Bytes that an instruction reads and writes outside of the chip."""
    opcode = instruction.opcode
    if opcode in FREE or any(f'"{name}"' in instruction.attributes for name in FREE_CALLS):
        return 0
    operands = [computation[name] for name in instruction.operands if name in computation]
    if opcode.endswith("-done"):  # what a transfer that was started has written
        return instruction.bytes
    if opcode in READERS:
        return instruction.bytes + min(instruction.bytes, operands[0].bytes)
    if opcode == "slice-start":
        return min(operands[0].bytes, instruction.arrays[1].bytes)
    if opcode == "dynamic-update-slice":
        return 2 * min(operands[1].bytes, instruction.bytes)
    read = sum(operand.bytes for operand in operands)
    if opcode == "fusion":
        inside = computations[instruction.attribute(r"calls=%?([\w.\-]+)")]
        read = sum(
            min(operand.bytes, _read(inside, number, computations))
            for number, operand in enumerate(operands)
        )
        root = next(i for i in inside.values() if i.root)
        if root.opcode == "dynamic-update-slice":  # in place
            return read + inside[root.operands[1]].bytes
    return read if opcode.endswith("-start") else read + instruction.bytes


def _read(computation: Computation, number: int, computations: dict[str, Computation]) -> int:
    """The bytes that a fused computation takes of its parameter."""
    parameter = next(
        i for i in computation.values() if i.opcode == "parameter" and i.literal == str(number)
    )
    whole, total = sum(array.bytes for array in parameter.arrays), 0
    for user in computation.values():
        if parameter.name not in user.operands:
            continue
        place = user.operands.index(parameter.name)
        if user.opcode in READERS and place == 0:
            total += sum(array.bytes for array in user.arrays)
        elif user.opcode == "dynamic-update-slice" and place == 0:
            continue
        elif user.opcode == "fusion":
            called = computations[user.attribute(r"calls=%?([\w.\-]+)")]
            total += _read(called, place, computations)
        else:
            return whole
    return min(total, whole)

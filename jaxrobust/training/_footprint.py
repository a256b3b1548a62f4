"""What the compiled step takes of every device: memory and communication."""

from typing import Any

from jaxrobust.training._program_cost import program_cost


def footprint(compiled: Any) -> dict[str, int]:
    """Memory and collectives of a compiled step, for the run's rows.

    Args:
      compiled: of `train_step.lower(...).compile()`.

    Returns:
      `bytes_per_device` (state, data set, intermediate results), `collectives` per step and
      `collective_bytes` that they hand out; what the backend does not tell is left out.
    """
    found = {}
    memory = compiled.memory_analysis()
    if memory is not None:
        used = memory.argument_size_in_bytes + memory.output_size_in_bytes
        found["bytes_per_device"] = used + memory.temp_size_in_bytes - memory.alias_size_in_bytes
    try:
        cost = program_cost(compiled.as_text())
    except (ValueError, LookupError, StopIteration, TypeError):
        return found  # a backend that writes its programs in another way
    found["collectives"] = sum(cost.collectives.values())
    found["collective_bytes"] = cost.collective_bytes
    return found

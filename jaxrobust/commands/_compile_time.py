"""The time that JAX spends on tracing and compiling during a command."""

from typing import Any

import jax

TRACING = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
)
COMPILATION = "/jax/core/compile/backend_compile_duration"


class CompileTime:
    """While entered, adds up what JAX reports; reading a program from the cache counts too."""

    def __init__(self) -> None:
        self._seconds = {"tracing": 0.0, "compilation": 0.0}

    def __enter__(self) -> "CompileTime":
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *error: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: Any) -> None:
        if event in TRACING:
            self._seconds["tracing"] += duration_secs
        elif event == COMPILATION:
            self._seconds["compilation"] += duration_secs

    def seconds(self) -> dict[str, float]:
        """`{"tracing": s, "compilation": s}`."""
        return {name: round(value, 2) for name, value in self._seconds.items()}

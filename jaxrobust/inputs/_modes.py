"""Networks that are left in training mode, told by the errors of their libraries."""

import contextlib
import traceback
from collections.abc import Iterator

from jaxrobust.inputs._error import InputError

SWITCH = (
    "is the network in training mode? Switch it to evaluation: train=False (Linen), .eval() (NNX), "
    "eqx.nn.inference_mode (Equinox)"
)
# Flax: NNX statistics that would change while traced, Linen's that may not, dropout without a key.
FLAX = ("TraceContextError", "ModifyScopeVariableError", "InvalidRngError")
NNX_TRANSFORMS = "flax.nnx.transforms"
EQUINOX = "requires a key when running in non-deterministic mode"


def _in_transform(error: BaseException) -> bool:
    """Whether a transformation of NNX wanted to change variables, not the network."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(f.f_globals.get("__name__", "").startswith(NNX_TRANSFORMS) for f in frames)


@contextlib.contextmanager
def evaluation_mode() -> Iterator[None]:
    """Turns what a network in training mode raises into one line.

    Raises:
      InputError: where the body raised such an error.
    """
    try:
        yield
    except Exception as error:
        if type(error).__name__ not in FLAX and EQUINOX not in str(error):
            raise
        if type(error).__name__ == "TraceContextError" and _in_transform(error):
            raise InputError(
                "logits_fn contains nnx.jit, or another transformation of nnx, which writes the "
                "network's variables back into another trace and may lose some there: build the "
                "network again and give it without nnx.jit"
            ) from error
        reason = str(error).strip().splitlines()[0][:160]
        raise InputError(
            f"logits_fn changes or draws while it is evaluated: {SWITCH} ({reason})"
        ) from error

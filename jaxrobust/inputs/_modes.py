"""Networks that are left in training mode, told by the errors of their libraries."""

import contextlib
from collections.abc import Iterator

from jaxrobust.inputs._error import InputError

SWITCH = (
    "is the network in training mode? Switch it to evaluation: train=False (Linen), .eval() (NNX), "
    "eqx.nn.inference_mode (Equinox)"
)
# Flax: NNX statistics that would change while traced, Linen's that may not, dropout without a key.
FLAX = ("TraceContextError", "ModifyScopeVariableError", "InvalidRngError")
EQUINOX = "requires a key when running in non-deterministic mode"


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
        reason = str(error).strip().splitlines()[0][:160]
        raise InputError(
            f"logits_fn changes or draws while it is evaluated: {SWITCH} ({reason})"
        ) from error

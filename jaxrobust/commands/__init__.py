"""What the subcommands of `jaxrobust` do, callable from Python."""

from jaxrobust.commands._evaluate import evaluate_run as evaluate_run
from jaxrobust.commands._tradeoff import run_tradeoff as run_tradeoff

"""What the subcommands of `jaxrobust` do, callable from Python."""

from jaxrobust.commands._autoattack import autoattack_run as autoattack_run
from jaxrobust.commands._bench import bench_attack as bench_attack
from jaxrobust.commands._bench import bench_convolutions as bench_convolutions
from jaxrobust.commands._bench import bench_many as bench_many
from jaxrobust.commands._bench import bench_step as bench_step
from jaxrobust.commands._bench import bench_throughput as bench_throughput
from jaxrobust.commands._bench_compile import bench_compile as bench_compile
from jaxrobust.commands._evaluate import evaluate_run as evaluate_run
from jaxrobust.commands._evaluate_mixed import MixedEvaluation as MixedEvaluation
from jaxrobust.commands._evaluate_mixed import Mixture as Mixture
from jaxrobust.commands._evaluate_mixed import assigned as assigned
from jaxrobust.commands._evaluate_mixed import evaluate_mixed as evaluate_mixed
from jaxrobust.commands._plan import plan_experiment as plan_experiment
from jaxrobust.commands._table import markdown_table as markdown_table
from jaxrobust.commands._tradeoff import run_tradeoff as run_tradeoff

"""The subcommands of `jaxrobust`, callable from Python."""

from jaxrobust.commands._attack_choices import Asked as Asked
from jaxrobust.commands._attack_choices import AttackChoice as AttackChoice
from jaxrobust.commands._attack_choices import attack_choices as attack_choices
from jaxrobust.commands._attack_choices import option_name as option_name
from jaxrobust.commands._autoattack import autoattack_run as autoattack_run
from jaxrobust.commands._bench import bench_attack as bench_attack
from jaxrobust.commands._bench import bench_many as bench_many
from jaxrobust.commands._bench import bench_step as bench_step
from jaxrobust.commands._bench import bench_throughput as bench_throughput
from jaxrobust.commands._bench import keep_rows as keep_rows
from jaxrobust.commands._bench import show_rows as show_rows
from jaxrobust.commands._bench_markdown import with_machine as with_machine
from jaxrobust.commands._budget import plan_for_budget as plan_for_budget
from jaxrobust.commands._evaluate import evaluate_run as evaluate_run
from jaxrobust.commands._evaluate_mixed import MixedEvaluation as MixedEvaluation
from jaxrobust.commands._evaluate_mixed import Mixture as Mixture
from jaxrobust.commands._evaluate_mixed import assigned as assigned
from jaxrobust.commands._evaluate_mixed import evaluate_mixed as evaluate_mixed
from jaxrobust.commands._export import export_run as export_run
from jaxrobust.commands._fronts import compared_fronts as compared_fronts
from jaxrobust.commands._new import new_experiment as new_experiment
from jaxrobust.commands._plan import NOTHING_RAN as NOTHING_RAN
from jaxrobust.commands._plan import plan_experiment as plan_experiment
from jaxrobust.commands._table import fronts_markdown as fronts_markdown
from jaxrobust.commands._table import markdown_table as markdown_table
from jaxrobust.commands._tradeoff import run_tradeoff as run_tradeoff

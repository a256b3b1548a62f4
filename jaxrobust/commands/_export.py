"""`jaxrobust export`: the folder of a run as it is published."""

import json
import pathlib
from collections.abc import Callable
from typing import cast

from jaxrobust.commands._identity import (
    card_fields,
    checkpoint_words,
    digest_of_checkpoint,
    digests_of_data,
    threat_text,
)
from jaxrobust.commands._run_rows import ROWS, kept_rows, latest_rows
from jaxrobust.commands._table import markdown_table
from jaxrobust.evaluation import Row, model_card, provenance
from jaxrobust.experiment import Experiment
from jaxrobust.files import replace_text
from jaxrobust.rows import write_rows
from jaxrobust.storage import local_folder
from jaxrobust.training import Run, export_network

CARD, README = "model_card.json", "README.md"


def export_run(
    workdir: pathlib.Path,
    folder: pathlib.Path,
    *,
    checkpoint: str = "best",
    say: Callable[[str], None] = print,
) -> None:
    """Writes the network of a run, with its results, into a folder to be published.

    The folder gets the configuration, the weights (safetensors), the rows of this checkpoint, a
    `README.md` with their table in the form of the Hugging Face Hub, and, if there is a row of the
    standard AutoAttack, a card in RobustBench's form.

    Args:
      workdir: the run's folder.
      folder: a new or an empty one.
      checkpoint: "best" or "last".
      say: called with each line of output for the user.

    Raises:
      ValueError: as `training.export_network`.
    """
    workdir, folder = local_folder(workdir), local_folder(folder)
    run = export_network(workdir, folder, checkpoint=checkpoint, say=say)
    rows, others = _rows_to_publish(workdir, run)
    if rows:
        write_rows(folder / ROWS, [row.to_dict() for row in rows])
    else:
        say(
            f"{workdir} has no rows of step {run.step} on its test data: evaluate it first to "
            "publish its results"
        )
    if others:
        say(f"left out: {others} of its rows are of other test data")
    standard = [row for row in rows if _is_standard(row)]
    if standard:
        card = json.dumps(_card(standard[-1], run), indent=2)
        replace_text(folder / CARD, card + "\n")
    words = checkpoint_words(checkpoint, held_out=run.experiment.validation.size > 0)
    replace_text(folder / README, _readme(run, folder, words=words))
    written = ", ".join(sorted(path.name for path in folder.iterdir()))
    say(f"exported {run.experiment.name}, step {run.step} ({words}), to {folder}: {written}")


def _rows_to_publish(workdir: pathlib.Path, run: Run) -> tuple[list[Row], int]:
    """The latest rows of a checkpoint on the test data of now, and how many others it has."""
    weights, data = digest_of_checkpoint(workdir, run.step), digests_of_data(run.dataset)
    rows = [row for row in kept_rows(workdir / ROWS) if row.evaluated.get("checkpoint") == weights]
    found = latest_rows([row for row in rows if row.evaluated == {**data, "checkpoint": weights}])
    return found, sum(row.evaluated != {**data, "checkpoint": weights} for row in rows)


def _is_standard(row: Row) -> bool:
    return bool(row.detail.get("protocol", {}).get("standard_autoattack", False))


def _card(row: Row, run: Run) -> dict[str, object]:
    """The card that the evaluation wrote beside its report, made of its row."""
    protocol = row.detail["protocol"]
    clean, robust = row.numbers
    return model_card(
        norm=protocol["norm"],
        eps=protocol["eps"],
        clean=clean.value,
        robust=robust.value,
        total=cast(int, robust.total),
        unreliable=bool(row.detail["checks"]),
        **card_fields(run.experiment),
    )


def _readme(run: Run, folder: pathlib.Path, *, words: str) -> str:
    """A model card of the Hugging Face Hub: a head in YAML, and the results."""
    experiment, fields = run.experiment, card_fields(run.experiment)
    table = "It was not evaluated before the export."
    if (folder / ROWS).exists():
        table = (
            f"{markdown_table(folder / ROWS)}\n\n"
            "Accuracies are in percent, with half of their 95 % interval, of the first `images` "
            f"test images. `{ROWS}` has the protocol of each evaluation."
        )
    return README_TEXT.format(
        name=experiment.name,
        dataset=json.dumps(fields["dataset"]),
        data=fields["dataset"],
        architecture=fields["architecture"],
        objective=experiment.objective.target,
        threat=threat_text(experiment),
        step=run.step,
        checkpoint=words,
        needs=_needs(experiment, fields["dataset"]),
        trust="".join(f" --trust {package}" for package in experiment.packages()),
        trusted=f", trust={experiment.packages()}" if experiment.packages() else "",
        version=provenance()["versions"]["jaxrobust"],
        table=table,
    )


def _needs(experiment: Experiment, data: str) -> str:
    """What a user of the folder must have besides it."""
    path = experiment.data.kwargs.get("path")
    place = "" if path is None else f", in `{path}`"
    there = [f"the test data, {data}{place}"]
    for package in experiment.packages():
        there.append(f"the Python module `{package}`, here or installed")
    return " and ".join(there)


README_TEXT = """\
---
library_name: jaxrobust
pipeline_tag: image-classification
tags: [adversarial-robustness, jax]
datasets: [{dataset}]
---

# {name}

`{architecture}` on {data}, trained with `{objective}` against {threat}. The checkpoint is of step
{step} ({checkpoint}), exported by jaxrobust {version}. `config.json` has all settings.

{table}

In the folder of these files, `jaxrobust evaluate .{trust}` attacks the network. It needs
{needs}.
In Python, `jaxrobust.training.load_run("."{trusted}).logits_fn` is the network, from images
`[b, h, w, c]` in [0, 1] to logits `[b, k]`.
"""

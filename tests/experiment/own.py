"""An experiment that is made of parts from outside; copied beside `own_parts.py` by tests."""

import optax
import own_parts as parts

from jaxrobust.experiment import Evaluation, Experiment, Validation, use


def darker(factor: float):
    return lambda key, image: image * factor


config = Experiment(
    name="own",
    data=use(parts.stripes, train=40),
    model=use(parts.Tiny, width=3),
    objective=use(parts.pairing, weight=0.1, steps=1),
    threat=use("compose", use(parts.brightness, eps=0.1), use("linf", 0.02)),
    augment=(use(parts.upside_down), use(darker, 0.9)),
    optimizer=use("chain", use(optax.clip_by_global_norm, max_norm=1.0), use(parts.slow_sgd)),
    learning_rate=use(parts.halved, peak=0.1),
    schedules={"objective.weight": use("linear_schedule", 0.0, 0.2, transition_steps=4)},
    validation=Validation(size=8, steps=1),
    evaluation=Evaluation(steps=1, batch_size=16),
    epochs=2,
    batch_size=16,
)

"""Fronts of accuracy against robustness on scikit-learn's digits, in two and a half minutes.

Command:  jaxrobust tradeoff experiments/digits_demo.py
"""

from dataclasses import replace

from jaxrobust.experiment import Evaluation, Experiment, Tradeoff, use

EPS = 0.2
base = Experiment(
    name="PGD-AT",
    data=use("digits"),
    model=use("digits_cnn", width=16),
    objective=use("pgd_at", steps=5),
    threat=use("linf", eps=EPS),
    optimizer=use("sgd", momentum=0.9, nesterov=True),
    learning_rate=use("cosine", peak=0.1, warmup_epochs=2),
    weight_decay=5e-4,
    epochs=25,
    batch_size=128,
    evaluation=Evaluation(steps=20, batch_size=360),
)
config = Tradeoff(
    name="digits_demo",
    members=(
        replace(
            base,
            schedules={"threat.eps": use("linear", start=0.0, end=EPS, to_epoch=10)},
            sweep={"schedules.threat.eps.end": (0.05, 0.1, 0.15, 0.2, 0.25)},
        ),
        replace(
            base,
            name="TRADES",
            objective=use("trades", steps=5),
            sweep={"objective.beta": (0.25, 1, 2, 4, 8)},
        ),
        replace(
            base,
            name="SCORE",
            objective=use("score", steps=5),
            sweep={"objective.beta": (0.25, 1, 2, 4, 8)},
        ),
        replace(
            base,
            name="mixture",
            objective=use("standard"),
            epochs=0,
            model=use(
                "mixture",
                std="member:PGD-AT eps 0.05",
                rob="member:PGD-AT eps 0.2",
                alpha=0.5,
            ),
            sweep={"model.alpha": (0.5, 0.7, 0.8, 0.9)},
        ),
    ),
    reference=(0.9, 0.0),
)

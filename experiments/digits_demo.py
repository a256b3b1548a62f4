"""Fronts of accuracy against robustness on scikit-learn's digits: four methods, each a line.

One data set, network and budget, l_inf eps 0.2 (image units), one seed: PGD-AT over the radius that
training ends with, TRADES and SCORE over beta, and mixtures of the least and of a more robust PGD-AT
over the weight alpha of the latter. All points are attacked by PGD-20 on cross-entropy and on the
margin. The figure and the report are written after each line.

PGD on two losses is an upper bound and one seed says nothing about another training:
`digits_fronts.py` has more methods, three seeds, and AutoAttack.

Command:  jaxrobust tradeoff experiments/digits_demo.py
Cost:     192 CPU seconds with an empty cache (measured on two cores that other work kept busy, so
          the wall time of a quiet machine is not known).
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
    schedules={"threat.eps": use("linear", start=0.0, end=EPS, to_epoch=10)},
    evaluation=Evaluation(steps=20, batch_size=360),
)
config = Tradeoff(
    name="digits_demo",
    members=(
        replace(base, sweep={"schedules.threat.eps.end": (0.05, 0.1, 0.15, 0.2, 0.25)}),
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
            schedules={},
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

"""Six training objectives on scikit-learn's digits: the trade-off in one figure.

Same network, same budget, each attacked by PGD-20 on cross-entropy and on the margin.

Command:  jaxrobust tradeoff experiments/digits_tradeoff.py
"""

from dataclasses import replace

from jaxrobust.experiment import Evaluation, Experiment, Tradeoff, Validation, use

base = Experiment(
    name="standard",
    data=use("digits"),
    model=use("digits_cnn", width=16),
    objective=use("standard"),
    threat=use("linf", eps=0.2),
    optimizer=use("sgd", momentum=0.9, nesterov=True),
    learning_rate=use("cosine", peak=0.1, warmup_epochs=2),
    weight_decay=5e-4,
    epochs=40,
    batch_size=128,
    validation=Validation(size=144, every=10),
    evaluation=Evaluation(steps=20, restarts=2, batch_size=360),
)

config = Tradeoff(
    name="digits_tradeoff",
    members=(
        base,
        replace(base, name="PGD-AT", objective=use("pgd_at", steps=10)),
        replace(base, name="TRADES", objective=use("trades", beta=6.0, steps=10)),
        replace(base, name="SCORE", objective=use("score", beta=4.0, steps=10)),
        replace(base, name="MART", objective=use("mart", beta=6.0, steps=10)),
        replace(
            base,
            name="GAIRAT",
            objective=use("gairat", steps=10),
            schedules={"objective.lam": use("stages", values=[(0, float("inf")), (20, -1.0)])},
        ),
    ),
)

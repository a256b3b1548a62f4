"""Standard training, PGD-AT and TRADES at three betas on scikit-learn's digits.

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
    threat=use("linf", eps=0.1),
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
        replace(base, name="TRADES beta=1", objective=use("trades", beta=1.0, steps=10)),
        replace(base, name="TRADES beta=3", objective=use("trades", beta=3.0, steps=10)),
        replace(base, name="TRADES beta=6", objective=use("trades", beta=6.0, steps=10)),
    ),
)

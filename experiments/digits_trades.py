"""TRADES on scikit-learn's digits: a robust network in less than a minute on a laptop.

Command:  jaxrobust train digits_trades
          jaxrobust evaluate runs/digits_trades
Cost:     about 10 s on two CPU cores, compilation included.
"""

from jaxrobust.experiment import Evaluation, Experiment, Validation, use

config = Experiment(
    name="digits_trades",
    data=use("digits"),
    model=use("digits_cnn", width=16),
    objective=use("trades", beta=6.0, steps=10),
    threat=use("linf", eps=0.1),
    optimizer=use("sgd", momentum=0.9, nesterov=True),
    learning_rate=use("cosine", peak=0.1, warmup_epochs=2),
    weight_decay=5e-4,
    epochs=40,
    batch_size=128,
    validation=Validation(size=144, every=10),
    evaluation=Evaluation(steps=20, restarts=2, batch_size=360),
)

"""TRADES on MNIST with the SmallCNN, by a schedule that two CPU cores finish in one sitting.

The threat, network, objective and beta of `mnist_trades`. In place of 100 epochs with 40 steps of
SGD: few epochs with 6 steps, Adam with a cosine, a radius that rises from 0 over the first epochs
(at 0.3 from the start the network stays at chance for long), and an average of the parameters.

Command:  jaxrobust train mnist_trades_two_cores
          jaxrobust evaluate runs/mnist_trades_two_cores --attack autoattack --norm linf --eps 0.3 --n 2000
"""

from jaxrobust.experiment import Evaluation, Experiment, Validation, use

config = Experiment(
    name="mnist_trades_two_cores",
    data=use("tfds", name="mnist"),
    model=use("small_cnn"),
    objective=use("trades", beta=6.0, steps=6),
    threat=use("linf", eps=0.3),
    schedules={"threat.eps": use("linear", start=0.0, end=0.3, to_epoch=4)},
    optimizer=use("adam"),
    learning_rate=use("cosine", peak=0.001, warmup_epochs=0.5),
    ema_decay=0.998,
    epochs=12,
    batch_size=128,
    validation=Validation(size=1000, every=2, steps=20),
    evaluation=Evaluation(steps=40, step_size=0.01),
    published={"clean": 99.48, "pgd40": 96.07, "pgd1000": 95.60},
)

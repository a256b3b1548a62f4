"""Binary TRADES on the MNIST digits 1 and 3 with the hinge loss: the published recipe.

eps 0.1, 20 steps of 0.01, lambda 5 (the authors' flag calls it beta), 30 epochs at a constant
learning rate of 0.01 with momentum 0.9 and no weight decay. The upper bound of the paper's theory
is checked on such a network, trained on scikit-learn's digits, by experiments/theory_trades.py.

Command:  jaxrobust train mnist_binary_hinge
          jaxrobust evaluate runs/mnist_binary_hinge
Cost:     a few accelerator minutes, or about ten minutes on two CPU cores (estimated).
Result:   the paper: robust accuracy about 99.4, gap of its bound 0.006 to 0.007.
"""

from jaxrobust.experiment import Evaluation, Experiment, Validation, use

config = Experiment(
    name="mnist_binary_hinge",
    data=use("mnist", classes=(1, 3)),
    model=use("binary_cnn"),
    objective=use("binary_trades", lam=5.0, steps=20, step_size=0.01),
    threat=use("linf", eps=0.1),
    optimizer=use("sgd", momentum=0.9),
    learning_rate=use("constant", value=0.01),
    epochs=30,
    batch_size=128,
    validation=Validation(size=500, every=5),
    evaluation=Evaluation(steps=20, step_size=0.01),
    published={"robust": 99.4},
)

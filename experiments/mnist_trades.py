"""TRADES on MNIST with the SmallCNN: the published recipe.

eps 0.3, 40 steps of 0.01; 100 epochs, the learning rate divided by 10 at epochs 55, 75 and 90
(counted from 1); no augmentation, no weight decay. The authors' code has beta 1, the paper also 6;
the published numbers are for 6. The last layer starts at zero, so the first batch is attacked with
noise alone.

Command:  jaxrobust train mnist_trades
          jaxrobust evaluate runs/mnist_trades --attack autoattack --norm linf --eps 0.3
Cost:     about 0.2 accelerator hours, estimated from the passes of the network at 100 TFLOP/s sustained
          (a third of an A100's bfloat16 peak); not measured.
Result:   published: clean 99.48, PGD-40 96.07, PGD-1000 95.60.

Not the recipe, but what two epochs on two busy CPU cores make of it (an hour, half of it waiting
for other jobs; 24 more for AutoAttack): 96.2 % clean and 55.8 % under the standard AutoAttack at eps
0.3 on the first 500 test images in TFDS's order (experiments/results/mnist_trades.jsonl), with

    --set data=tfds --set data.name=mnist --set epochs=2
    --set objective.steps=10 --set objective.step_size=0.06
    --set learning_rate=cosine --set learning_rate.peak=0.03
    --set validation.every=1 --set validation.size=500 --set evaluation.batch_size=250
    evaluate ... --attack autoattack --norm linf --eps 0.3 --n 500
"""

from jaxrobust.experiment import Evaluation, Experiment, Validation, use

config = Experiment(
    name="mnist_trades",
    data=use("mnist"),
    model=use("small_cnn"),
    objective=use("trades", beta=6.0, steps=40, step_size=0.01),
    threat=use("linf", eps=0.3),
    optimizer=use("sgd", momentum=0.9),
    learning_rate=use("piecewise", value=0.01, drops=[(54, 0.1), (74, 0.1), (89, 0.1)]),
    epochs=100,
    batch_size=128,
    validation=Validation(size=1000, every=10, steps=40),
    evaluation=Evaluation(steps=40, step_size=0.01),
    published={"clean": 99.48, "pgd40": 96.07, "pgd1000": 95.60},
)

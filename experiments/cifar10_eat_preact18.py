"""E-AT on CIFAR-10 with PreActResNet-18: three epochs make an l_inf network robust in three norms.

eps is 8/255 in l_inf and 12 in l_1; the result is to be evaluated in l_2 of radius 0.5 too, and in the
union of the three. Every batch is attacked in one of the two norms by APGD with 10 steps from the
clean image. The learning rate is 0.05, a tenth of it in the second epoch and a hundredth in the third.

It starts from an l_inf network of the same architecture: set `init_from` to its run, or to its weights.

Command:  jaxrobust train cifar10_eat_preact18 --set init_from=runs/cifar10_trades_preact18
          jaxrobust evaluate runs/cifar10_eat_preact18 --attack autoattack --norm l1 --eps 12
Cost:     about 0.01 accelerator hours, estimated from the passes of the network at 100 TFLOP/s sustained
          (a third of an A100's bfloat16 peak); not measured.
Result:   the paper's tables (not quoted here: the numbers were not available).
"""

from jaxrobust.experiment import Evaluation, Experiment, Validation, load, use

robust = load("cifar10_trades_preact18")
assert isinstance(robust, Experiment)
config = Experiment(
    name="cifar10_eat_preact18",
    data=robust.data,
    model=robust.model,
    init_from="runs/cifar10_trades_preact18",
    objective=use("eat", steps=10),
    threat=use("union", linf=8 / 255, l1=12.0),
    optimizer=use("sgd", momentum=0.9),
    learning_rate=use("piecewise", value=0.05, drops=[(1, 0.1), (2, 0.1)]),
    weight_decay=5e-4,
    epochs=3,
    batch_size=128,
    augment=(use("pad_crop", pad=4), use("flip")),
    validation=Validation(size=1024),
    evaluation=Evaluation(steps=20),
)

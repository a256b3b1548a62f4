"""MART on CIFAR-10 with WRN-34-10.

eps is 0.031, beta 6; the optimizer, schedule and epochs are those of cifar10_trades_wrn34, for
comparison at one budget. The published row (MART-RST: WRN-28-10 with 500,000 pseudo-labelled
images) is another setting, named in `published` for orientation only.

Command:  jaxrobust train cifar10_mart
          jaxrobust evaluate runs/cifar10_mart --attack autoattack --norm linf --eps 0.031
Cost:     about 4 accelerator hours, estimated from the passes of the network at 100 TFLOP/s sustained
          (a third of an A100's bfloat16 peak); not measured.
Result:   none published for this setting; MART-RST: clean 87.50, AutoAttack 56.29.
"""

from jaxrobust.experiment import Evaluation, Experiment, Validation, use

config = Experiment(
    name="cifar10_mart",
    data=use("cifar10"),
    model=use("wide_resnet", depth=34, width=10),
    objective=use("mart", beta=6.0, steps=10, step_size=0.007),
    threat=use("linf", eps=0.031),
    optimizer=use("sgd", momentum=0.9),
    learning_rate=use("piecewise", value=0.1, drops=[(74, 0.1)]),
    weight_decay=2e-4,
    epochs=76,
    batch_size=128,
    augment=(use("pad_crop", pad=4), use("flip")),
    validation=Validation(size=1024, every=5),
    evaluation=Evaluation(steps=20, step_size=0.003),
    published={"mart_rst_wrn28": {"clean": 87.50, "autoattack": 56.29}},
)

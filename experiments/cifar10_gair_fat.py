"""GAIR-FAT on CIFAR-10 with WRN-34-10, in its corrected form.

As cifar10_gairat, with the attack stopped tau steps after an example is first misclassified: tau 0
for 40 epochs, 3 until epoch 70, then 6; lambda 0 from epoch 60 on. The published code pairs the
remaining examples with the labels of others once the first has stopped; figures from it are not
those of the algorithm it describes.

Command:  jaxrobust train cifar10_gair_fat
          jaxrobust evaluate runs/cifar10_gair_fat --attack autoattack --norm linf --eps 0.031
Cost:     about 5 accelerator hours, estimated from the passes of the network at 100 TFLOP/s sustained
          (a third of an A100's bfloat16 peak); not measured.
Result:   published (best checkpoint, uncorrected code): clean 88.59, PGD-20 56.21, PGD+ 53.50.
"""

from jaxrobust.experiment import Evaluation, Experiment, Validation, use

config = Experiment(
    name="cifar10_gair_fat",
    data=use("cifar10"),
    model=use("wide_resnet", depth=34, width=10),
    objective=use("gair_fat", steps=10, step_size=0.007),
    threat=use("linf", eps=0.031),
    optimizer=use("sgd", momentum=0.9),
    learning_rate=use("stages", values=[(0, 0.1), (59, 0.01), (89, 0.001), (109, 0.0005)]),
    schedules={
        "objective.lam": use("stages", values=[(0, float("inf")), (59, 0.0)]),
        "objective.tau": use("stages", values=[(0, 0), (40, 3), (70, 6)]),
    },
    weight_decay=2e-4,
    epochs=120,
    batch_size=128,
    augment=(use("pad_crop", pad=4), use("flip")),
    validation=Validation(size=1024, every=5),
    evaluation=Evaluation(steps=20, step_size=0.031 / 4),
    published={"clean": 88.59, "pgd20": 56.21, "pgd_plus": 53.50},
)

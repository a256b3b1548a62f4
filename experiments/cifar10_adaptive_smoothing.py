"""Adaptive Smoothing on CIFAR-10: the mixing network between the two published bases.

The accurate base is BiT-M ResNet-152x2, the robust one RobustBench's Wang2023Better_WRN-70-16 (in
CIFAR-10: 93.25 clean, 70.69 under AutoAttack); eps is 8/255. Both stay frozen; the mixing network
learns from the composite loss with the product term, on batches with as many attacked as clean
images, from ten attacks of random strength on each attacked image. A step sees as many images as
the authors' on four GPUs. The scales of the bases' logits hold in training too; in the authors' code
training did not read them.

The authors publish all three networks. Their files are evaluated without training:

Command:  jaxrobust train cifar10_adaptive_smoothing
          jaxrobust evaluate runs/cifar10_adaptive_smoothing --attack autoattack
          jaxrobust evaluate-mixed bit_cifar10.pt wang2023_wrn70_cifar10.pt --data cifar10 \\
              --std-network bit_resnet --rob-network Wang2023Better_WRN-70-16 \\
              --smoothing cifar10-edm --network mixing_cifar10.pt --attack autoattack
          (--attack adaptive: the loss includes the mixing network's output. MixedNUTS, which needs
          no mixing network: --nuts cifar10, with --rob-network Peng2023Robust, --attack adaptive through its surrogate.)
Cost:     training 10 accelerator hours, AutoAttack 24, estimated from the passes of the networks at
          100 TFLOP/s sustained (a third of an A100's bfloat16 peak); not measured.
Result:   published: clean 95.23, AutoAttack 68.06; MixedNUTS 95.19, 70.08 (adaptive 69.71).
"""

from jaxrobust.experiment import Evaluation, Experiment, Validation, use
from jaxrobust.mixing import ADAPTIVE_SMOOTHING

preset = ADAPTIVE_SMOOTHING["cifar10-edm"]
config = Experiment(
    name="cifar10_adaptive_smoothing",
    data=use("cifar10"),
    model=use(
        "mixed_classifier",
        std={"weights": "bit_cifar10.pt", "network": "bit_resnet"},
        rob={
            "weights": "wang2023_wrn70_cifar10.pt",
            "network": "Wang2023Better_WRN-70-16",
            "dataset": "cifar10",
        },
        gamma_scale=preset.gamma_scale,
        gamma_bias=preset.gamma_bias,
        **preset.options,
    ),
    objective=use("adaptive_smoothing", copies=10, steps=75, **preset.loss._asdict()),
    threat=use("linf", eps=8 / 255),
    optimizer=use("adamw", weight_decay=1e-5),
    learning_rate=use("exponential_warmup", peak=5e-5),
    clip_norm=10.0,
    epochs=3,
    batch_size=320,
    augment=(use("flip"), use("pad_crop", pad=4)),
    validation=Validation(size=512, steps=20),
    evaluation=Evaluation(steps=20, step_size=0.0027, batch_size=64),
    published={"clean": 95.23, "autoattack": 68.06},
)

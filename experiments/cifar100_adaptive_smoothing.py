"""Adaptive Smoothing on CIFAR-100: the mixing network between the two published bases.

The accurate base is BiT-M ResNet-152x2, the robust one RobustBench's Wang2023Better_WRN-70-16 (in
CIFAR-100: 75.22 clean, 42.67 under AutoAttack); eps is 8/255. Both stay frozen; the mixing network
learns from the composite loss with the product term, on batches with as many attacked as clean
images, from ten attacks of random strength on each attacked image. A step sees as many images as
the authors' on four GPUs. The scales of the bases' logits hold in training too; in the authors' code
training did not read them.

The authors publish all three networks. Their files are evaluated without training:

Command:  jaxrobust train cifar100_adaptive_smoothing
          jaxrobust evaluate runs/cifar100_adaptive_smoothing --attack autoattack
          jaxrobust evaluate-mixed bit_cifar100.pt wang2023_wrn70_cifar100.pt --data cifar100 \\
              --std-network bit_resnet --rob-network Wang2023Better_WRN-70-16 \\
              --smoothing cifar100-edm --network mixing_cifar100.pt --attack autoattack
          (--attack adaptive: the loss includes the mixing network's output. MixedNUTS, which needs
          no mixing network: --nuts cifar100, --attack adaptive through its surrogate.)
Cost:     training 10 accelerator hours, AutoAttack 24, estimated from the passes of the networks at
          100 TFLOP/s sustained (a third of an A100's bfloat16 peak); not measured.
Result:   published: clean 85.21, AutoAttack 38.72; MixedNUTS 83.08, 41.91 (adaptive 41.80).
"""

from jaxrobust.experiment import Experiment, load, replace, use
from jaxrobust.mixing import ADAPTIVE_SMOOTHING

preset = ADAPTIVE_SMOOTHING["cifar100-edm"]
recipe = load("cifar10_adaptive_smoothing")
assert isinstance(recipe, Experiment)
config = replace(
    recipe,
    name="cifar100_adaptive_smoothing",
    data=use("cifar100"),
    model=use(
        "mixed_classifier",
        std={"weights": "bit_cifar100.pt", "network": "bit_resnet"},
        rob={
            "weights": "wang2023_wrn70_cifar100.pt",
            "network": "Wang2023Better_WRN-70-16",
            "dataset": "cifar100",
        },
        gamma_scale=preset.gamma_scale,
        gamma_bias=preset.gamma_bias,
        **preset.options,
    ),
    objective=use("adaptive_smoothing", **{**recipe.objective.kwargs, **preset.loss._asdict()}),
    published={"clean": 85.21, "autoattack": 38.72},
)

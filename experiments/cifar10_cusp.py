"""CuSP on CIFAR-10 with VGG16: the published recipe.

120 epochs; the rotation range grows 120, 150, 180 degrees and the l_inf radius 2/255, 4/255, 8/255
(eps in image units) at epochs 75 and 90 (counted from 1), where the learning rate drops too. Each
image is cropped, flipped, rotated at random (nearest neighbour, black corners) and then attacked
by PGD (ten steps of 2/255). No normalisation of the images. The published code does not shuffle;
this file does. Its TRADES form and the baselines: `curricula.cusp(objective="trades")`,
`kind="linf_only"`, `"augmentation_only"`, `"both_at_full_strength"`.

Command:  jaxrobust train cifar10_cusp
          jaxrobust evaluate runs/cifar10_cusp --degrees 30 --shift-px 3
          jaxrobust evaluate runs/cifar10_cusp --attack autoattack --norm linf --eps 8/255
Cost:     about 0.2 accelerator hours, estimated from the passes of the network at 100 TFLOP/s
          sustained (a third of an A100's bfloat16 peak); not measured.
Result:   the paper's numbers were not available; none are quoted.
"""

from jaxrobust import curricula
from jaxrobust.experiment import Evaluation, Experiment, Validation, use

config = Experiment(
    name="cifar10_cusp",
    data=use("cifar10"),
    model=use("vgg16"),
    optimizer=use("sgd", momentum=0.9),
    weight_decay=5e-4,
    batch_size=128,
    augment=(use("pad_crop", pad=4), use("flip")),
    validation=Validation(size=1024, every=5),
    evaluation=Evaluation(steps=10, step_size=2 / 255, spatial_degrees=30.0, spatial_shift_px=3.0),
    **curricula.cusp(),
)

"""TRADES on CIFAR-10 with a million images of a better diffusion model, WRN-28-10 (Wang et al.).

eps is 8/255. The recipe of cifar10_score_wrn28 with the KL baseline of its code: TRADES with beta 5 and
label smoothing 0.1, an attack on batch statistics from a uniform start. The images are those of EDM
instead of DDPM. The published results with 20 and 50 million images need larger batches and more
epochs. Two particulars are left out: the authors' first step sets the running statistics to the
batch's, and their checkpoint is chosen by CW-PGD with 40 steps on held-out images of their own.

The generated images (1,000,000 of EDM, `image` and `label` in one npz) are published by the authors;
put the path into `generated`.

Command:  jaxrobust train cifar10_wang_wrn28 --set generated.path=/data/1m.npz
          jaxrobust evaluate runs/cifar10_wang_wrn28 --attack autoattack --norm linf --eps 8/255
Cost:     about 14 accelerator hours, estimated from the passes of the network at 100 TFLOP/s sustained
          (a third of an A100's bfloat16 peak); not measured.
Result:   published: clean 91.12, AutoAttack 63.35.
"""

from jaxrobust.experiment import Experiment, load, replace, use

recipe = load("cifar10_score_wrn28")
assert isinstance(recipe, Experiment)
config = replace(
    recipe,
    name="cifar10_wang_wrn28",
    generated=use("generated", path="cifar10_edm_1m.npz", fraction=0.7),
    objective=use(
        "trades",
        beta=5.0,
        steps=10,
        step_size=2 / 255,
        label_smoothing=0.1,
        start="uniform",
        attack_statistics="batch",
    ),
    published={"clean": 91.12, "autoattack": 63.35},
)

"""SCORE on CIFAR-10 with a million generated images, WRN-70-16: the published recipe.

eps is 8/255. Batches of 512 hold 358 generated and 154 labelled images; 98 steps count as an epoch,
400 epochs. The attack runs on batch statistics, which it does not move. OneCycle also cycles the
momentum (0.95, 0.85, 0.95). The evaluated parameters are an average with decay 0.995 that starts
after 2.5 % of the training and uses the live running statistics. No weight decay on batch norm.
beta is 3 as in the released checkpoints (the README's command has 4). One particular is left out:
the authors' first step sets the running statistics to the batch's.

The generated images (1,000,000 of a DDPM, `image` and `label` in one npz) are published by the
authors of Rebuffi et al.; put the path into `generated`.

Command:  jaxrobust train cifar10_score_wrn70 --set generated.path=/data/1m.npz
          jaxrobust evaluate runs/cifar10_score_wrn70 --attack autoattack --norm linf --eps 8/255
Cost:     about 110 accelerator hours, estimated from the passes of the network at 100 TFLOP/s sustained
          (a third of an A100's bfloat16 peak); not measured.
Result:   published: clean 89.01, AutoAttack 63.35.
"""

from jaxrobust.experiment import Experiment, load, replace, use

recipe = load("cifar10_score_wrn28")
assert isinstance(recipe, Experiment)
config = replace(
    recipe,
    name="cifar10_score_wrn70",
    model=use("wide_resnet", **{**recipe.model.kwargs, "depth": 70, "width": 16}),
    published={"clean": 89.01, "autoattack": 63.35},
)

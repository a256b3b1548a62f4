"""SCORE on CIFAR-10 with PreActResNet-18: a short recipe for one accelerator.

The recipe of cifar10_trades_preact18 with SCORE's squared error in place of TRADES' divergence; no
extra data. eps is 8/255. 30 epochs with half a cosine, bfloat16 computation, an average of the
parameters. The learning rate is half of that of TRADES here, as in the authors' recipe without
extra data. Figures on another encoding of the images (such as one made from JPEG files) must be
labelled so.

Command:  jaxrobust train cifar10_score_preact18
          jaxrobust evaluate runs/cifar10_score_preact18 --attack autoattack --norm linf --eps 8/255 --n 1000
Cost:     about 0.1 accelerator hours, estimated from the passes of the network at 100 TFLOP/s
          sustained (a third of an A100's bfloat16 peak); not measured.
Result:   none published for this recipe.
"""

from jaxrobust.experiment import Experiment, load, replace, use

recipe = load("cifar10_trades_preact18")
assert isinstance(recipe, Experiment)
config = replace(
    recipe,
    name="cifar10_score_preact18",
    objective=use("score", beta=3.0, steps=10, step_size=2 / 255),
    learning_rate=use("cosine", peak=0.1, warmup_epochs=2),
)

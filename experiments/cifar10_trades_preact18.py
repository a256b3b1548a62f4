"""TRADES on CIFAR-10 with PreActResNet-18: a short recipe for one accelerator.

eps is 8/255. 30 epochs with half a cosine, bfloat16 computation, an average of the parameters.
`data` may be any CIFAR-10: `use("cifar10")` is the official archive. Figures on another encoding
of the images (such as one made from JPEG files) must be labelled so.

Command:  jaxrobust train cifar10_trades_preact18
          jaxrobust evaluate runs/cifar10_trades_preact18 --attack autoattack --norm linf --eps 8/255 --n 1000
Cost:     about 0.1 accelerator hours, estimated from the passes of the network at 100 TFLOP/s
          sustained (a third of an A100's bfloat16 peak); not measured.
Result:   none published for this recipe.

To see it learn on a CPU: a fifth of a CIFAR-10 re-encoded as JPEG, 420 steps at width 16, 16 minutes on
two busy cores. Accuracy on 1,000 held-out training images, clean / margin PGD-20, after each of the three
epochs: 35.4 / 22.5, 37.7 / 22.1, 40.3 / 23.0 %; on the first 200 test images in TFDS's order 42.0 % clean
and 24.5 % under the standard AutoAttack (experiments/results/cifar10_jpeg_narrow.jsonl), with

    --set data=tfds --set data.name=cifar10 --set 'data.train_split=train[:20%]'
    --set name=cifar10_jpeg_narrow --set model.width=16 --set model.dtype=null --set epochs=3
    --set learning_rate=cosine --set learning_rate.peak=0.1 --set learning_rate.warmup_epochs=0.5
    --set batch_size=64 --set validation.every=1 --set validation.size=1000
    --set evaluation.batch_size=250
    evaluate ... --attack autoattack --norm linf --eps 8/255 --n 200
"""

from jaxrobust.experiment import Evaluation, Experiment, Validation, use

config = Experiment(
    name="cifar10_trades_preact18",
    data=use("cifar10"),
    model=use(
        "preact_resnet18",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2471, 0.2435, 0.2616),
        dtype="bfloat16",
    ),
    objective=use("trades", beta=6.0, steps=10, step_size=2 / 255),
    threat=use("linf", eps=8 / 255),
    optimizer=use("sgd", momentum=0.9, nesterov=True),
    learning_rate=use("cosine", peak=0.2, warmup_epochs=2),
    weight_decay=5e-4,
    epochs=30,
    batch_size=256,
    augment=(use("pad_crop", pad=4), use("flip")),
    ema_decay=0.995,
    ema_warmup=0.1,
    validation=Validation(size=1024, every=5),
    evaluation=Evaluation(steps=20, step_size=2 / 255),
)

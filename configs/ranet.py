"""RANet (arXiv:2003.07326, section 4): early exits at rising resolutions; CIFAR and the digits.

  :cifar10, :cifar100   300 epochs, 64 images a step
  :digits               15 epochs of a smaller network
  :vit_digits           60 epochs of a ViT with exits

Command: `python train.py --config=configs/ranet.py:cifar10 --workdir=runs/ranet`.
The last tenth of the training images (a fifth of the digits) is held out; from it `vitjax exits`
finds the thresholds (docs/training.md).

The recipe of CIFAR is that of the authors' code (yangle15/RANet-pytorch, main.py and args.py): SGD
with momentum 0.9, weight decay 1e-4 on all parameters, learning rate 0.1, crops of images padded by
4 pixels, mirrors, and the sum of all exits' losses. The learning rate falls by its `--lr-type
cosine`, which the code has beside the default, a tenth at a half and again at three quarters. The
padding is mirrored, theirs black.
Expected: curves alone are published (paper, section 4; the README's pictures). Not run here.

The digits have the same three sub-networks of 2, 4 and 6 blocks, and so its six exits, but blocks
of one layer and half the stem's width, and SGD's rate is 0.05 after a warm-up. CPUs compile
that in a third of the processor time that `ranet_cifar_3scale` with two layers and AdamW took.
"""

from typing import Any

from vitjax.names import check_choice

CIFAR = {  # name → mean and standard deviation of its pixels
    "cifar10": dict(mean=(0.4914, 0.4824, 0.4467), std=(0.2471, 0.2435, 0.2616)),
    "cifar100": dict(mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761)),
}
SGD = dict(name="sgd", b1=0.9, weight_decay=1e-4)
DIGITS: dict[str, dict[str, Any]] = {
    "digits": dict(
        epochs=15.0,
        model=dict(name="ranet_cifar_3scale", layers=1, stem_width=8),
        optimizer=SGD,
        schedule=dict(name="cosine", learning_rate=0.05, warmup_steps=30),
    ),
    "vit_digits": dict(
        epochs=60.0,
        model=dict(name="vit_ti8", width=64, depth=6, num_heads=4, pool="gap", exits=(0, 1, 3)),
        optimizer=dict(name="adamw", b2=0.99, weight_decay=0.05, clip_norm=1.0),
        schedule=dict(name="cosine", learning_rate=3e-3, warmup_steps=30),
    ),
}
RUNS = (*CIFAR, *DIGITS)


def get_config(name: str = "cifar10") -> dict[str, Any]:
    check_choice("run of configs/ranet.py", name, RUNS)
    if name in DIGITS:
        return dict(
            DIGITS[name],
            data=dict(
                train="digits://",
                train_split="train[:80%]",
                image_size=32,
                batch_size=64,
                eval_batch_size=360,
                eval_crop=1.0,
                augment="digits",
            ),
            log_every=50,
            eval_every=10_000,
            checkpoint_every=10_000,
        )
    return dict(
        epochs=300.0,
        model=dict(name="ranet_cifar_4scale"),
        data=dict(
            train=f"tfds://{name}",
            train_split="train[:90%]",
            image_size=32,
            batch_size=64,
            eval_batch_size=1000,
            eval_crop=1.0,
            augment="simple_crop(pad=4, interpolation='bilinear') | flip",
            **CIFAR[name],
        ),
        optimizer=SGD,
        schedule=dict(name="cosine", learning_rate=0.1),
        eval_every=7030,  # ten epochs
        checkpoint_every=7030,
    )

"""Sizes of well-known data sets, for plans that do not open the data."""

import re

KNOWN = {
    "boxes://": (100_000, 10),  # made by this library: `?count=N` says another number
    "moving://": (4000, 8),
    "scenes://": (2000, 11),
    "imagenet2012": (1_281_167, 1000),
    "imagenet21k": (14_197_122, 21_841),  # the whole of the winter 2011 release
    "jft300m": (303_000_000, 18_291),
    "kinetics400": (240_436, 400),  # videos, as mmaction2 counts those that are left
    "cifar100": (50_000, 100),
    "cifar10": (50_000, 10),
    "digits": (1437, 10),
    "oxfordiiitpet": (3_680, 37),
    "oxfordflowers102": (1_020, 102),
    "ade20k": (20_210, 150),  # the scene parsing benchmark, arXiv:1608.05442
    "adechallengedata2016": (20_210, 150),  # as its archive is called
    "coco": (118_287, 80),  # train2017, arXiv:1405.0312
    "cityscapes": (2_975, 19),  # with fine labels, arXiv:1604.01685
    "gopro": (2_103, 0),  # pairs, arXiv:1612.02177
    "sidd": (320, 0),  # pairs of SIDD-Medium in sRGB; patches cut of them are more
}
"""Part of the data's name → training images and classes, 0 where there are none."""


def known_size(name: str) -> tuple[int, int]:
    """Look up numbers of training images and classes by a path or URI; zeros if unknown.

    Case, and characters between letters and digits, are ignored: `/data/SIDD_Medium` is known,
    `/home/siddharth` is not.
    """
    count = re.search(r"[?&]count=([1-9]\d*)", name)
    for word, (images, classes) in KNOWN.items():
        if re.search("[^a-z0-9]*".join(word) + "(?![a-z])", name.lower()):
            return (int(count[1]) if count else images), classes
    return 0, 0

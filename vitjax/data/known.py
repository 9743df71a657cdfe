"""Sizes of well-known data sets, for plans that do not open the data."""

KNOWN = {
    "imagenet2012": (1_281_167, 1000),
    "imagenet21k": (14_197_122, 21_841),  # the whole of the winter 2011 release
    "jft300m": (303_000_000, 18_291),
    "cifar100": (50_000, 100),
    "cifar10": (50_000, 10),
    "digits": (1437, 10),
}
"""Part of the data's name → training images and classes."""

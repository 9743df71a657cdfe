"""Crops of detectors' training: scales, parts, proportions."""

import numpy as np

from vitjax.data.transforms.augment import parse_augmentation
from vitjax.data.transforms.multi_scale import multi_scale


def test_whole_images_are_resized_to_a_side() -> None:
    rng = np.random.default_rng(0)
    for frame, shown in (
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((300, 900), (444, 1333)),
        ((7, 700), (13, 1333)),
    ):
        crop = multi_scale(*frame, rng, 1344, short_sides=(800, 800, 1), part=0.0)
        assert crop.box == (0, 0, *frame) and crop.size == shown
    small = multi_scale(480, 640, rng, (401, 503), short_sides=(800, 800, 1), part=0.0)
    assert small.size == (377, 503)


def test_parts_are_inside_and_keep_proportions() -> None:
    rng = np.random.default_rng(0)
    sides, shares = set(), []
    for _ in range(200):
        (top, left, rows, columns), size = multi_scale(480, 640, rng, 1344)
        assert 0 <= top <= 480 - rows and 0 <= left <= 640 - columns
        assert abs(size[0] / size[1] - rows / columns) < 0.01
        assert max(size) <= 1333
        sides.add(min(size))
        shares.append(rows * columns / (480 * 640))
    assert sides == set(range(480, 801, 32))
    assert 0.4 < np.mean(np.equal(shares, 1.0)) < 0.6 and min(shares) < 0.6


def test_it_is_written_in_a_line() -> None:
    parse_augmentation(
        "multi_scale(short_sides=(800, 800, 1), part=0.0, interpolation='bilinear') | flip"
    )

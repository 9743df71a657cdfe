"""DAT and DAT++ against the numbers of the official code, and at other sizes and options."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.golden import load_golden
from tests.golden.compare import FOLDER, check_case
from vitjax import weights

DEPTHS = {"dat_v1_tiny_224": (2, 2, 6, 2), "dat_pp_tiny_224": (2, 4, 18, 2)}


def stages(depths: tuple[int, ...]) -> dict[str, str]:
    names = {"patch_proj": "stem", "cls_norm": "norm"}
    for i, depth in enumerate(depths):
        names[f"stage{i + 1}"] = f"stage_{i}"
        if i:
            names[f"down{i}"] = f"downsample_{i}"
        for j in range(depth):
            names[f"stages.{i}.attns.{j}"] = f"stage_{i}/block_{j}/mixer"
            names[f"stages.{i}.mlps.{j}"] = f"stage_{i}/block_{j}/mlp"
    return names


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("dat_v1_tiny_224", "dat_tiny"),
        pytest.param("dat_pp_tiny_224", "dat_pp_tiny", marks=pytest.mark.slow),
    ],
)
def test_dat_is_the_official_one(case, name):
    check_case(case, name, stages(DEPTHS[case]))

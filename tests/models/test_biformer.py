"""BiFormer against the numbers of the official implementation, its sizes, and what it accepts."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.golden.compare import FOLDER, check_case
from vitjax import weights
from vitjax.models import create_model

COUNTS = json.loads(pathlib.Path(FOLDER / "param_counts.json").read_text())
STAGES = {"stem": "stem", "norm": "norm"}
STAGES |= {f"stage{i + 1}": f"stage_{i}" for i in range(4)}
STAGES |= {f"down{i + 1}": f"downsample_{i}" for i in (1, 2, 3)}
BLOCKS = [(i, j) for i, depth in enumerate((2, 2, 8, 2)) for j in range(depth)]
STAGES |= {f"stages.{i}.{j}": f"stage_{i}/block_{j}" for i, j in BLOCKS}
ROUTES = {
    f"stages.{i}.{j}.attn.router": f"stage_{i}/block_{j}/mixer/router/routes"
    for i, j in BLOCKS
    if i < 3
}


def test_biformer_is_the_official_one() -> None:
    check_case("biformer_tiny", "biformer_tiny", STAGES, routes=ROUTES)

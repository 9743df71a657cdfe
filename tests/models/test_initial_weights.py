"""First weights against those of the reference code: standard deviation and mean of every
parameter.

`initial_weights.npz` has mean, standard deviation and size of one draw of each parameter of the
published sizes, by PyTorch 2.14 with timm 1.0.31 and the authors' initialisers.
"""

import math
import re

import jax
import numpy as np
import pytest
from flax import traverse_util

from tests.golden.compare import FOLDER
from vitjax.models import create_model
from vitjax.weights import to_torch

SMALL = {  # the real widths, few blocks
    "deit_tiny_distilled": dict(depth=2),
    "swin_tiny": dict(depths=(1, 1, 1, 1)),
    "swinv2_tiny_w8": dict(depths=(1, 1, 1, 1)),
    "pvt_v2_b0": dict(depths=(1, 1, 1, 1)),
    "volo_d1": dict(depths=(1, 1, 1, 1)),
    "biformer_tiny": dict(depths=(1, 1, 1, 1)),
    "dat_tiny": dict(depths=(1, 1, 2, 2)),
}
OTHERWISE = {  # of the authors' own code, where the reference was made with timm's
    "deit_tiny_distilled/cls_token": 0.02,
}


def draw(name: str, **options) -> dict:
    model = create_model(name, **options)
    size = model.image_size
    images = np.zeros((1, size, size, 3), np.float32)
    fast = {"xla_backend_optimization_level": 0}
    return jax.jit(model.init, compiler_options=fast)(jax.random.key(1), images)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_has_the_moments_of_the_reference(name: str) -> None:
    with np.load(FOLDER / "initial_weights.npz") as file:
        reference = dict(zip(file["names"].tolist(), file["moments"], strict=True))
    kinds: dict[str, list] = {}
    for key, value in to_torch(name, jax.device_get(draw(name, **SMALL[name]))).items():
        if "running_" in key or "num_batches" in key:
            continue
        path = f"{name}/{key}"
        mean, deviation, size = reference[path]
        assert size == value.size, path
        deviation = OTHERWISE.get(path, deviation)
        error = 0.03 + 6 / math.sqrt(size)  # 3 %, and the noise of two draws (4 σ)
        assert abs(value.mean() - mean) <= error * max(deviation, 1e-6), path
        assert abs(value.std() - deviation) <= error * max(deviation, 1e-6), path
        if deviation:
            kinds.setdefault(re.sub(r"\d+", "*", path), []).append(
                (size, (value.std() / deviation) ** 2)
            )
    for kind, found in kinds.items():  # small ones together, so that noise does not hide them
        size = sum(n for n, _ in found)
        ratio = math.sqrt(sum(n * square for n, square in found) / size)
        assert abs(ratio - 1) < 0.03 + 2.5 / math.sqrt(size), (kind, ratio)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "linear", "tables"),
    [
        ("pvt_tiny", dict(depths=(1, 1, 1, 1)), 0.02, dict(pos_embed=0.02, cls_token=0.02)),
        ("dat_pp_tiny", dict(depths=(2, 1, 1, 1)), None, dict(rpb=0.02, table=0.01)),
        ("debiformer_tiny", dict(depths=(2, 1, 1, 1)), None, dict(table=0.01)),
    ],
)
def test_families_whose_code_says_it(
    name: str, options: dict, linear: float | None, tables: dict[str, float]
) -> None:
    """Linear layers normal in PVT, and PyTorch's default of ±1/√fan_in in DAT++ and DeBiFormer, as
    convolutions have it in all three.
    """
    params = traverse_util.flatten_dict(draw(name, **options)["params"], sep="/")
    checked = set()
    for path, leaf in params.items():
        part, value = path.rsplit("/", 1)[-1], np.asarray(leaf)
        if "norm" in path:
            continue
        if part in ("kernel", "bias"):
            kernel = params[path.removesuffix(part) + "kernel"].shape
            convolution = len(kernel) == 4 and kernel[0] == kernel[1]
            # Projections are [C, maps, heads, width]; a convolution [h, w, in, out].
            fan_in = math.prod(kernel[:3]) if convolution else kernel[0]
            want = 1 / math.sqrt(3 * fan_in)
            if linear is not None and not convolution:
                want = linear if part == "kernel" else 0.0
        else:
            want = tables[part]
        error = 0.03 + 4 / math.sqrt(value.size)
        assert abs(value.std() - want) <= error * want, (path, value.std(), want)
        checked.add(part)
    assert checked == {"kernel", "bias", *tables}

"""What belongs to a family: its decay set, and the layers of its learning rate decay."""

import jax
import numpy as np
import pytest

from vitjax.models import create_model
from vitjax.train.layer_decay import layer_factors
from vitjax.train.optimizer import fitting_rules, match_rules
from vitjax.train.state import named_leaves
from vitjax.weights import abstract_variables

DEPTHS = dict(depths=(1, 1, 2, 1))
MODELS = {  # name → options, blocks, tensors besides kernels that decay, kernels that do not
    "vit_ti16": (dict(depth=2), 2, (), ()),
    "deit_tiny_distilled": (dict(depth=2), 2, (), ()),
    "dinov3_s16": (dict(depth=2), 2, ("cls_token", "reg_token"), ()),
    "r50_vit_b16": (dict(depth=2), 2, (), ()),
    "bit_r50x1": (DEPTHS, 5, (), ()),
    "resnet50": (DEPTHS, 5, (), ()),
    "resnet50_nonlocal": (DEPTHS, 5, (), ()),
    "coatnet_0": (dict(depths=(2, 2, 3, 2)), 5, (), ()),
    "swin_tiny": (DEPTHS, 5, (), ()),
    "swinv2_tiny_w8": (DEPTHS, 5, (), ("cpb_fc1", "cpb_fc2")),
    "pvt_tiny": (DEPTHS, 5, ("pos_embed",), ()),
    "pvt_v2_b0": (DEPTHS, 5, (), ()),
    "volo_d1": (DEPTHS, 7, (), ()),  # with two class blocks
    "biformer_tiny": (DEPTHS, 5, (), ()),
    "debiformer_tiny": (dict(depths=(2, 2, 2, 2)), 8, (), ()),
    "mixer_s16": (dict(depth=2), 2, (), ()),
    "efficientformer_l1": (DEPTHS, 5, (), ()),
    "ghostnet_100": ({}, 16, (), ()),
    "cait_xxs24": (dict(depth=2), 4, (), ()),  # with two class blocks
    "mobile_former_52m": ({}, 8, ("tokens",), ()),
    "container_light": (DEPTHS, 5, (), ()),
    "poolformer_s12": (DEPTHS, 5, (), ()),
    "convnext_tiny": (DEPTHS, 5, (), ()),
    "dat_tiny": (DEPTHS, 5, (), ()),
    "nat_small": (DEPTHS, 5, ("rpb",), ()),
    "dat_pp_tiny": (DEPTHS, 5, ("rpb",), ()),
}


@pytest.fixture(scope="module", params=MODELS)
def family(request):
    options, *expected = MODELS[request.param]
    model = create_model(request.param, **options)
    return model, abstract_variables(model)["params"], *expected


@pytest.mark.slow
def test_weight_decay_is_on_what_the_authors_code_has_it(family) -> None:
    model, params, _, more, fewer = family
    rules = fitting_rules(params, getattr(model, "decay_rules", ((".*/kernel", 1.0), (".*", 0.0))))
    factors = named_leaves(match_rules(params, rules, "decay_rules"))
    assert set(factors.values()) == {0.0, 1.0}
    for path, factor in factors.items():
        *_, module, leaf = ("", *path.split("/"))
        decays = (leaf == "kernel" and module not in fewer) or leaf in more
        assert factor == decays, path
    assert all(any(name in path for path in factors) for name in (*more, *fewer))


@pytest.mark.slow
def test_layer_decay_rises_from_the_patches_to_the_head(family) -> None:
    _, params, depth, _, _ = family
    factors = named_leaves(layer_factors(params, 0.5, "mae"))
    assert {f for p, f in factors.items() if p.startswith("head/")} == {1.0}
    assert set(factors.values()) == {0.5**n for n in range(depth + 2)}
    first = [p for p, f in factors.items() if f == 0.5 ** (depth + 1)]
    assert any(p.endswith("kernel") for p in first)
    assert not any("head" in p or p.startswith("norm") for p in first)


def test_a_scanned_model_has_the_factors_of_the_plain_one() -> None:
    def factors(scan: bool) -> dict:
        model = create_model("vit_ti16", depth=3, scan=scan)
        return named_leaves(layer_factors(abstract_variables(model)["params"], 0.75))

    plain, scanned = factors(False), factors(True)
    for path, factor in scanned.items():
        if path.startswith("blocks/"):
            want = [plain[path.replace("blocks", f"block_{i}")] for i in range(3)]
            np.testing.assert_allclose(jax.device_get(factor).ravel(), want, rtol=1e-6)
        else:
            assert factor == plain[path]

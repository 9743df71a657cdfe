"""ViT against the numbers of the official implementation."""

import pytest

from tests.golden.compare import check_case

STAGES = {"patch_embed": "patch_embed", "norm": "norm", "head": "head"} | {
    f"blocks.{i}": f"block_{i}" for i in range(12)
}


@pytest.mark.golden
@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("vit_tiny_patch16_224", "vit_ti16"),
        pytest.param("vit_base_patch32_224", "vit_b32", marks=pytest.mark.slow),
    ],
)
def test_vit_is_the_official_one(case: str, name: str) -> None:
    check_case(case, name, STAGES)

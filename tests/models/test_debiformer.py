"""DeBiFormer against the numbers of the official implementation, its sizes, what it accepts."""

from tests.golden.compare import check_case

STAGES = {"stem": "stem", "norm": "norm"}
STAGES |= {f"stage{i + 1}": f"stage_{i}" for i in range(4)}
STAGES |= {f"down{i + 1}": f"downsample_{i}" for i in (1, 2, 3)}
STAGES |= {"s1b0_attn1": "stage_0/block_0/mixer", "s1b0_attn2": "stage_0/block_1/mixer"}
STAGES |= {"s4b0_attn1": "stage_3/block_0/mixer"}
ROUTES = {}
for i, depth in enumerate((1, 1, 4, 1)):
    for j in range(depth):
        theirs, ours = f"stages.{i}.{j}", [f"stage_{i}/block_{2 * j + half}" for half in (0, 1)]
        STAGES |= {theirs: ours[1]}
        for half in (0, 1):
            STAGES |= {f"{theirs}.mlp{half + 1}": f"{ours[half]}/mlp"}
            ROUTES |= {f"{theirs}.attn{half + 1}.router": f"{ours[half]}/mixer/router/routes"}
            if half or i == 3:
                STAGES |= {f"{theirs}.attn{half + 1}.mlp": f"{ours[half]}/mixer/mlp"}
            if half and i != 0 or (i, j) in ((1, 0), (2, 0)):
                STAGES |= {f"{theirs}.attn{half + 1}": f"{ours[half]}/mixer"}


def test_debiformer_is_the_official_one() -> None:
    check_case("debiformer_tiny", "debiformer_tiny", STAGES, routes=ROUTES)

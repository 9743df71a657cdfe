"""Operations of a run, counted without a compiler."""

import json

import pytest

from vitjax.cli import main
from vitjax.plan.count import count
from vitjax.training import load_config


@pytest.mark.parametrize(
    "dtype", ["float32", "bfloat16"]
)  # attention in 16 bits recomputes its logits
def test_the_default_run_by_hand(dtype: str) -> None:
    """16 tokens of width 64: 12 C² N + 2 N² C a block, four of them, patches of 12 values, head."""
    config = load_config("configs/digits.py", {"model.dtype": dtype})
    found = count(config, images=1437, classes=10)
    block = 12 * 64 * 64 * 16 + 2 * 16 * 16 * 64
    assert found.macs == 4 * block + 16 * 12 * 64 + 64 * 10
    assert found.steps == round(150 * 1437 / 64)
    assert found.flops == 6 * found.macs * 64 * found.steps
    low, high = found.core_days
    assert high == pytest.approx(2 * low) and "core-days" in found.report()


def test_what_compiles_does_not_go_with_it(capsys: pytest.CaptureFixture) -> None:
    assert main(["plan", "--config=digits", "--count", "--quick"])
    assert "--count compiles nothing" in capsys.readouterr().err


def test_a_scanned_model_costs_what_it_does_unrolled(capsys: pytest.CaptureFixture[str]) -> None:
    """In 16 bits, and with rates of stochastic depth, as recipes have it."""
    flags = ["plan", "--config=imagenet:deit_small", "--count", "--json", "--config.model.depth=2"]
    found = []
    for scan in (True, False):
        assert main([*flags, f"--config.model.scan={scan}"]) == 0
        found.append(json.loads(capsys.readouterr().out)["macs"])
    assert found[0] == found[1] > 10**8

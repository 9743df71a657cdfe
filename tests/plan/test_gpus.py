"""Plans for GPUs: names, what library calls cost, the margin; compiled if the plugin is there."""

import json
import os
import pathlib
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

from vitjax.plan import gpus, plan, topology
from vitjax.plan.estimate import estimate
from vitjax.plan.hlo import moved_bytes, parse, product_flops
from vitjax.plan.kernels import kernels

ROOT = pathlib.Path(__file__).parent.parent.parent
needs_plugin = pytest.mark.skipif(
    not any("cuda" in p.name for p in metadata.entry_points(group="jax_plugins")),
    reason="the extra plan-gpu is not installed",
)
CUBLAS = """\
ENTRY %main (a: bf16[6,197,64], b: bf16[6,211,64]) -> f32[6,197,211] {
  %a = bf16[6,197,64]{2,1,0} parameter(0)
  %b = bf16[6,211,64]{2,1,0} parameter(1)
  %c = (f32[6,197,211]{2,1,0}, s8[4194304]{0}) custom-call(%a, %b), \
custom_call_target="__cublas$lt$matmul", metadata={op_name="jit(f)/block_0/mixer/attend/dot"}, \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["2"],\
"rhs_contracting_dimensions":["2"],"lhs_batch_dimensions":["0"],"rhs_batch_dimensions":["0"]}}}
  %d = f32[6,197,211]{2,1,0} get-tuple-element(%c), index=0
  ROOT %e = f32[6,197,211]{2,1,0} fusion(%d), kind=kLoop, calls=%inside, \
metadata={op_name="jit(f)/block_0/mlp/add"}
}
%inside (p: f32[6,197,211]) -> f32[6,197,211] {
  %p = f32[6,197,211]{2,1,0} parameter(0)
  ROOT %n = f32[6,197,211]{2,1,0} negate(%p)
}
"""


@pytest.mark.parametrize(
    ("name", "found"),
    [("h100", ("h100", 1, 1)), ("a100x4", ("a100", 1, 4)), ("b200x24", ("b200", 3, 8)),
     ("v3:4x4", None), ("v3-128", None), ("cpu", None)],
)  # fmt: skip
def test_gpus_by_name(name: str, found: Any) -> None:
    assert gpus.parse_gpus(name) == found


def test_a_host_is_whole_and_a_gpu_known() -> None:
    with pytest.raises(ValueError, match="give h100x8 or another multiple of 8"):
        gpus.parse_gpus("h100x12")
    with pytest.raises(ValueError, match="Unknown GPU 'h101'; did you mean 'h100'"):
        gpus.parse_gpus("h101x8")


def test_without_the_plugin_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus.metadata, "entry_points", lambda group: ())
    with pytest.raises(RuntimeError, match=r"pip install 'vitjax\[plan-gpu\]'"):
        topology.open_topology("h100x8")


@pytest.mark.parametrize(
    ("kind", "flops"),
    [("TPU v3", 123e12 / 2), ("TPU v5 lite", 197e12), ("NVIDIA H100 80GB HBM3", 989e12),
     ("NVIDIA L40S", None), ("cpu", None)],
)  # fmt: skip
def test_the_peak_of_a_device_by_its_kind(kind: str, flops: float | None) -> None:
    found = topology.device_peak(kind)
    assert (found and found[0]) == flops


def test_calls_of_libraries_are_counted_as_what_they_compute() -> None:
    program = parse(CUBLAS)
    call = program.computations["main"]["c"]
    assert product_flops(program, "main", call) == 2 * 6 * 197 * 211 * 64
    # Operands and the result, without the room that the library works in.
    assert moved_bytes(program, "main", call) == 6 * (2 * 64 * (197 + 211) + 4 * 197 * 211)
    assert kernels(program) == {"attention": {"cuBLAS products": 1}, "rest": {"XLA's own": 1}}


@pytest.mark.parametrize("kind", ["Forward", "BackwardInput", "BackwardFilter"])
def test_a_convolutions_gradients_cost_what_it_costs(kind: str) -> None:
    images, kernel, outputs = (
        "bf16[3,29,31,5]{3,2,1,0}",
        "bf16[7,3,3,5]{3,2,1,0}",
        ("bf16[3,29,31,7]{3,2,1,0}"),
    )
    given, result = {
        "Forward": ((images, kernel), outputs),
        "BackwardInput": ((outputs, kernel), images),
        "BackwardFilter": ((images, outputs), kernel),
    }[kind]
    text = f"""\
ENTRY %main (a: bf16[1], b: bf16[1]) -> bf16[1] {{
  %a = {given[0]} parameter(0)
  %b = {given[1]} parameter(1)
  ROOT %c = ({result}, u8[0]{{0}}) custom-call(%a, %b), window={{size=3x3 pad=1_1x1_1}}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$conv{kind}"
}}
"""
    program = parse(text)
    call = program.computations["main"]["c"]
    assert product_flops(program, "main", call) == 2 * (3 * 29 * 31 * 7) * (3 * 3 * 5)
    assert kernels(program)["rest"] == {"cuDNN convolutions": 1}


def described(margin: float = 0.1) -> topology.Topology:
    """One H100, whose device only says what it is."""
    device = SimpleNamespace(platform="gpu", device_kind="NVIDIA H100 80GB HBM3")
    return topology.Topology("h100", [device], 1, topology.GPUS["H100"], margin, {})


def test_the_time_is_a_roofline_without_a_range() -> None:
    there = described()
    found = estimate(parse(CUBLAS), {}, [], there)
    assert found is not None
    assert there.chip is not None
    assert found.range is None
    assert "not a measurement" in found.what
    assert found.flops == 2 * 6 * 197 * 211 * 64
    result = 4 * 6 * 197 * 211  # written by the product, read and written by what follows it
    operands = 2 * 6 * 64 * (197 + 211)
    assert found.seconds == pytest.approx((operands + 3 * result) / there.chip.bandwidth)


@pytest.mark.parametrize(("bytes_", "fits"), [(70e9, True), (80e9, False)])
def test_a_tenth_of_the_memory_is_left_free(bytes_: float, fits: bool) -> None:
    sizes = dict(argument=1, output=1, alias=1, generated_code=0, temp=int(bytes_))
    analysis = SimpleNamespace(**{f"{k}_size_in_bytes": v for k, v in sizes.items()})
    executable = SimpleNamespace(
        memory_analysis=lambda: analysis, as_text=lambda: CUBLAS, cost_analysis=lambda: None
    )
    lowered = SimpleNamespace(compile=lambda **_: executable, as_text=lambda: "program")
    found = plan.compile_step(lowered, described(), {"data": 1}, cache=False)
    assert (found.overflow is None) == fits
    if found.overflow:
        assert found.overflow == (bytes_ + 1, pytest.approx(0.9 * 80 * 2**30))


@needs_plugin
@pytest.mark.slow
@pytest.mark.parametrize(("name", "crossed"), [("h100", set()), ("a100x8", {"data"})])
def test_the_default_run_is_planned_for_gpus(name: str, crossed: set[str], tmp_path: Any) -> None:
    """benchmarks/plan_gpu.py does so for all configs, which takes hours."""
    command = [
        *(sys.executable, "-m", "vitjax.cli", "plan", "--config=digits", f"--topology={name}"),
        *("--config.model.depth=1", "--config.model.dtype=bfloat16", "--json"),
    ]
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cuda" not in done.stderr
    found = json.loads(done.stdout)
    kind, _, number = gpus.parse_gpus(name) or ("", 0, 0)
    assert found["fits"]
    assert found["memory"]["capacity"] == gpus.TARGETS[kind].memory
    assert found["kernels"]["attention"]["cuBLAS products"] > 4
    assert {axis for c in found["collectives"] for axis in c["axes"]} == crossed
    # Six operations for each multiply-add of the forward pass, and attention's logits twice more.
    work = found["mfu"][0] * found["estimate"]["seconds"] * topology.GPUS[kind.upper()].flops
    assert work < found["estimate"]["flops"] < 1.5 * work
    assert found["devices"] == number


@needs_plugin
@pytest.mark.slow
def test_attention_of_many_tokens_is_cudnns_on_each_gpu(tmp_path: Any) -> None:
    command = [
        *(sys.executable, "-m", "vitjax.cli", "plan", "--config=imagenet:deit_tiny", "--json"),
        *("--topology=h100x8", "--config.model.depth=1", "--config.mixing.group_size=0"),
        *("--config.data.batch_size=16", "--config.data.eval_batch_size=16"),
    ]
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kernels"]["attention"]["cuDNN attention"] == 3  # forward twice, backward
    assert "cuBLAS products" not in found["kernels"]["attention"]
    assert {(c["kind"], tuple(c["axes"])) for c in found["collectives"]} == {
        ("all-reduce", ("data",))
    }

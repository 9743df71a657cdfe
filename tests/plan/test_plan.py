"""The plan: topologies and data by name, memory, cache, search; with libtpu if it is installed."""

import importlib.util
import json
import pathlib
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from vitjax import cli
from vitjax.models import model_options
from vitjax.plan import fit, plan, topology
from vitjax.plan.collectives import Collective
from vitjax.plan.estimate import FACTORS, Estimate, estimate
from vitjax.plan.hlo import parse
from vitjax.training import load_config

ROOT = pathlib.Path(__file__).parent.parent.parent
DIGITS = str(ROOT / "configs" / "digits.py")
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("v3:4x4", (4, 4)), ("v3-32", (4, 4)), ("v3-128", (8, 8)), ("v5e-8", (2, 4)),
     ("v4-128", (4, 4, 4)), ("v5p:2x2x1", (2, 2, 1))],
)  # fmt: skip
def test_topologies_by_shape_or_number(name: str, shape: tuple[int, ...]) -> None:
    generation, found = topology.parse_topology(name)
    assert name.startswith(generation)
    assert found == shape


def test_unknown_topology_lists_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"'v9:4x4'.*v3:4x4.*cpu"):
        topology.parse_topology("v9:4x4")
    with pytest.raises(ValueError, match="power of two"):
        topology.parse_topology("v3-40")


def test_without_libtpu_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"pip install 'vitjax\[plan\]'"):
        topology.open_topology("v3:4x4")


def config(**fields: str) -> Any:
    return load_config(DIGITS, {k.replace("__", "."): v for k, v in fields.items()})


def test_size_of_the_data_by_name_or_by_flag() -> None:
    assert plan.known_data(config(), 0, 0) == (1437, 10)
    imagenet = config(data__train="tfds://imagenet2012")
    assert plan.known_data(imagenet, 0, 0) == (1_281_167, 1000)
    photos = config(data__train="photos/")
    assert plan.known_data(photos, 500, 3) == (500, 3)
    with pytest.raises(ValueError, match="--images=N and --classes=N"):
        plan.known_data(photos, 0, 0)


def test_estimate_gives_back_what_uncosted_instructions_took() -> None:
    text = """\
ENTRY %main (p: bf16[8192,8192]) -> bf16[8192,8192] {
  %p = bf16[8192,8192]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %c = bf16[8192,8192]{1,0:T(8,128)(2,1)} convolution(%p, %p), dim_labels=bf_io->bf
}
"""
    chip = topology.CHIPS["v5e"]
    device = SimpleNamespace(platform="tpu")
    there = topology.Topology("v5e:1x1", [device], 1, chip)
    ideal = 2 * 8192**3 / chip.flops
    costs = {"optimal_seconds": ideal - 3.0, "flops": 2.0 * 8192**3, "bytes accessed": 1.0}
    wire = [Collective("all-reduce", ("data",), 4, 1, int(1e9))]
    found = estimate(parse(text), costs, wire, there)
    assert found is not None
    assert found.uncosted == 3
    assert found.compute == pytest.approx(ideal)
    assert found.communication == pytest.approx(1.5e9 / chip.links)
    assert found.range[0] == pytest.approx(FACTORS[0] * found.seconds)
    assert 1.0 < FACTORS[0] < FACTORS[1] < 3.0


@pytest.mark.slow
def test_plan_for_this_machine_and_its_cache(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["plan", f"--config={DIGITS}", "--topology=cpu", "--config.model.depth=1"]
    assert cli.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    memory = found["memory"]
    assert memory["optimizer"] == pytest.approx(2 * memory["parameters"], rel=0.01)
    assert memory["total"] > memory["arguments"] > 3 * memory["parameters"] * 0.99
    assert found["steps"] == round(150 * 1437 / 64)
    assert cli.main([*arguments, "--quick"]) == 0  # another effort is another program
    setting, least = plan.effort_setting()
    assert f"compiled with effort {least}" in capsys.readouterr().out
    assert getattr(jax.config, setting) in (0.0, "UNKNOWN")  # as before
    monkeypatch.setattr(plan, "parse", None)  # nothing is compiled and read a second time
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert "activations" in text
    assert "effort" not in text


@pytest.mark.slow
def test_a_teacher_is_part_of_the_plan(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plan", f"--config={DIGITS}", "--topology=cpu", "--config.model.depth=1", "--json"]
    (tmp_path / "config.json").write_text(json.dumps(config(model__depth="1").to_dict()))
    (tmp_path / "classes.json").write_text(json.dumps(list("0123456789")))
    found = []
    for more in ([], [f"--config.distillation.teacher={tmp_path}"]):
        assert cli.main([*arguments, *more]) == 0
        found.append(json.loads(capsys.readouterr().out))
    alone, taught = found
    assert alone["memory"]["other_state"] == 0
    assert taught["memory"]["other_state"] == alone["memory"]["parameters"]


def test_misfit_says_by_how_much_and_what_would_help() -> None:
    there = topology.Topology(
        "v3:2x2", [SimpleNamespace(platform="tpu")] * 8, 4, topology.CHIPS["v3"]
    )
    compiled = plan.Compiled({}, [], None, 1.0, overflow=(20e9, 16e9))
    state = {"parameters": 1, "optimizer": 2, "ema": 0, "other_state": 0}
    found = plan.Plan(config(), there, {"data": 8}, state, compiled, 10, 10)
    text = found.report()
    assert "4.00 GB too much" in text
    assert "accumulate=2" in text
    assert "remat=True" in text
    assert found.to_dict()["fits"] is False


def test_the_compilers_refusals_are_understood() -> None:
    text = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total "
        "memory required for HLO temporaries (85.5G) exceeds available HBM (15.75G). HLO module: f"
    )
    found = plan.read_overflow(text, arguments=2**30)
    assert found == (86.5 * 2**30, 15.75 * 2**30)
    assert plan.read_overflow("Used 55.0G of 15.48G hbm.", 7) == (55.0 * 2**30, 15.48 * 2**30)
    assert plan.read_overflow("INTERNAL: something else", 7) is None


def pretend(state: float, activations: float) -> Any:
    """Plans of so many bytes on devices of 16 GB: each part costs 2 s, FSDP 2, remat 4."""
    there = topology.Topology(
        "v3:2x2", [SimpleNamespace(platform="tpu")] * 8, 4, topology.CHIPS["v3"]
    )

    def make(flags: fit.Flags) -> plan.Plan:
        parts, shards, remat = (
            flags[k] for k in ("optimizer.accumulate", "mesh.fsdp", "model.remat")
        )
        asked = state / shards + activations / parts / (4 if remat else 1)
        seconds = 10.0 + 2 * parts + 2 * (shards > 1) + 4 * remat
        cost = Estimate(seconds, 0.0, 0.0, 0.0, 0, 0.0, 0.0)
        compiled = plan.Compiled({}, [], cost, 1.0)
        if asked > 16e9:
            compiled = plan.Compiled({}, [], None, 1.0, (asked, 16e9))
        sizes = {"parameters": int(state / shards), "optimizer": 0, "ema": 0, "other_state": 0}
        return plan.Plan(config(), there, {"data": 8}, sizes, compiled, 10, 10)

    return make


def test_fit_climbs_until_it_fits_and_takes_the_fastest() -> None:
    tried = fit.fit(pretend(10e9, 24e9), batch=1024, devices=8, remat=True)
    flags, best = tried[0]
    assert best.fits
    assert (flags["mesh.fsdp"], flags["optimizer.accumulate"]) == (4, 2)
    # Without FSDP 4 parts are needed, and that is known after the first misfit.
    plain = [f["optimizer.accumulate"] for f, _ in tried if f["mesh.fsdp"] == 1]
    assert sorted(plain) == [1, 4]


def test_fit_gives_up_on_a_mesh_whose_state_is_too_large() -> None:
    tried = fit.fit(pretend(64e9, 4e9), batch=1024, devices=8, remat=True)
    assert tried[0][0]["mesh.fsdp"] == 8
    assert sum(f["mesh.fsdp"] == 1 for f, _ in tried) == 1


@needs_libtpu
@pytest.mark.slow
def test_every_config_is_planned_for_tpus(capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted((ROOT / "configs").glob("*.py")):
        arguments = [
            "plan", f"--config={path}", "--topology=v5e:2x2", "--images=10000", "--classes=10",
            "--config.data.batch_size=64", "--config.data.eval_batch_size=64", "--json",
        ]  # fmt: skip
        known = model_options(load_config(str(path), {}).model["name"])
        if "depth" in known:
            arguments.append("--config.model.depth=1")
        elif "depths" in known:
            arguments.append(f"--config.model.depths={tuple(1 for _ in known['depths'])}")
        assert cli.main(arguments) == 0, path
        found = json.loads(capsys.readouterr().out)
        assert found["fits"], path
        assert 0 < found["estimate"]["seconds"] < 1
        assert found["estimate"]["calibrated_seconds"][0] > found["estimate"]["seconds"]
        assert {(c["kind"], tuple(c["axes"])) for c in found["collectives"]} == {
            ("all-reduce", ("data",))
        }
        assert found["memory"]["total"] < found["memory"]["capacity"]

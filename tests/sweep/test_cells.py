"""Cells: ids that are hashes of configs, the table, and branches equal to runs of their own."""

import json
import pathlib

import pytest

from vitjax import cli
from vitjax.plan.count import count
from vitjax.sweep.cells import cell_id, differing, make_rows, open_sweep, read_cells
from vitjax.train.config import ConfigError
from vitjax.training import load_config, resolve

BASE = """
BASE = dict(
    seed=3, steps=6,
    model=dict(name="vit_ti2", width=16, depth=1, num_heads=2),
    data=dict(train="digits://?split=test", image_size=8, batch_size=12, eval_batch_size=120),
    optimizer=dict(name="adamw"),
    schedule=dict(name="rsqrt", learning_rate=1e-2, warmup_steps=1, timescale=3),
    checkpoint_every=2, eval_every=100, log_every=2, keep=9,
)
"""


def write(path: pathlib.Path, body: str) -> str:
    path.write_text(f"from vitjax.sweep.cells import branch\n{BASE}\ndef get_sweep():\n{body}\n")
    return str(path)


def test_the_id_is_of_what_changes_a_result(tmp_path: pathlib.Path) -> None:
    config = load_config("digits", {})
    same = load_config("digits", {"log_every": "7", "data.num_threads": "2"})
    other = load_config("digits", {"seed": "1"})
    assert cell_id(config) == cell_id(same) != cell_id(other)
    assert resolve({"seed": 1}, "here", {}).seed == 1


def test_the_table_has_sizes_samples_and_operations(tmp_path: pathlib.Path) -> None:
    file = write(tmp_path / "two.py", "    yield BASE\n    yield dict(BASE, steps=0, epochs=2.0)")
    cells, rows = open_sweep(file, tmp_path / "out")
    assert [row["D"] for row in rows] == [72, 720] and {row["images"] for row in rows} == {360}
    for cell, row in zip(cells, rows):
        counted = count(cell.config, 360, 10)
        assert (row["N"], row["flops"]) == (counted.parameters, counted.flops)
    assert differing(cells) == [{"epochs": 0.0, "steps": 6}, {"epochs": 2.0, "steps": 0}]
    table = tmp_path / "out" / "cells.jsonl"
    assert [json.loads(line) for line in table.read_text().splitlines()] == rows
    before = table.stat().st_mtime_ns
    assert open_sweep(file, tmp_path / "out")[1] == rows and table.stat().st_mtime_ns == before


def test_what_a_file_gets_wrong_is_told(tmp_path: pathlib.Path) -> None:
    for body, words in (
        ("    yield from ()", "yields nothing"),
        ("    yield BASE\n    yield dict(BASE, log_every=1)", "the same run twice"),
        ("    yield dict(BASE, sede=1)", "Unknown config field 'sede'"),
        ("    yield branch(dict(steps=9), 4, 2)", "does not depend on its length"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_cells(write(tmp_path / "wrong.py", body))
    with pytest.raises(ConfigError, match=r"no function get_sweep\(\)"):
        read_cells("digits")


def test_a_branch_names_its_trunk_which_comes_first(tmp_path: pathlib.Path) -> None:
    file = write(tmp_path / "b.py", "    yield branch(BASE, 4, 2)\n    yield branch(BASE, 2, 2)")
    trunk, *branches = cells = read_cells(file)
    assert [cell.trunk for cell in cells] == ["", trunk.id, trunk.id]
    assert branches[0].config.init == f"cell:{trunk.id}"
    assert branches[0].placed(tmp_path).init == str(tmp_path / trunk.id)
    rows = make_rows(cells)
    assert rows[1]["own_flops"] == pytest.approx(rows[1]["flops"] / 3)  # two steps of six


@pytest.mark.slow
def test_a_branch_equals_the_run_from_the_beginning(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = "    yield dict(BASE, schedule=dict(BASE['schedule'], cooldown_steps=2))"
    file = write(tmp_path / "b.py", f"    yield branch(BASE, 4, 2)\n{whole}")
    folder = tmp_path / "runs"
    trunk, part, alone = read_cells(file)

    def sweep(action: str, *flags: str) -> int:
        return cli.main(["sweep", action, file, f"--workdir={folder}", *flags])

    assert sweep("run", "--index=1") == 75  # its trunk is not there
    assert "waits for its trunk" in capsys.readouterr().out
    assert sweep("run", "--next") == 0
    assert "3 cells: 3 done" in capsys.readouterr().out
    found = {
        cell.id: json.loads((folder / cell.id / "result.json").read_text())
        for cell in (trunk, part, alone)
    }
    assert [found[c.id]["id"] for c in (trunk, part, alone)] == [trunk.id, part.id, alone.id]
    assert found[part.id]["sha256"] == found[alone.id]["sha256"] != found[trunk.id]["sha256"]
    assert found[part.id]["metrics"] == found[alone.id]["metrics"]
    rows = map(json.loads, (folder / part.id / "metrics.jsonl").read_text().splitlines())
    steps = [row["step"] for row in rows if row["split"] != "process"]
    assert min(steps) == 6  # it took only the last two
    assert sweep("fit", "--metric=test/lost") == 2
    assert "did you mean 'test/loss'" in capsys.readouterr().err
    assert sweep("fit") == 2  # a cell of one size is no law
    assert "there are 1 different points" in capsys.readouterr().err
    refused = ["--config.init_step=4", f"--config.init={folder / trunk.id}", "--config.seed=4"]
    config = [f"--config={tmp_path / 'one.py'}", f"--workdir={tmp_path / 'x'}"]
    (tmp_path / "one.py").write_text(f"{BASE}\ndef get_config():\n    return BASE\n")
    assert cli.main(["train", *config, *refused]) == 2
    assert "differs from it in more than schedule and length: seed" in capsys.readouterr().err
    assert cli.main(["train", *config, refused[1], "--config.init_step=3"]) == 1
    assert "cannot go on from step 3" in capsys.readouterr().err

"""Cells of a sweep: their configs, their names, and the table `cells.jsonl`."""

import dataclasses
import hashlib
import json
import os
import pathlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vitjax.data.sources import open_source
from vitjax.plan.count import Count, count
from vitjax.train.config import ConfigError, call_file, count_steps, flat_config
from vitjax.train.defaults import FREE, RunConfig, free_fields
from vitjax.training import check, resolve

TRUNK = "cell:"
"""Beginning of `init` in the config of a branch, before the id of the cell that it branches from.
"""
ID = 12
"""Hexadecimal digits of an id: of 10,000 cells two are the same by chance once in 5 million sweeps.
"""
UNCOUNTED = ("seed", "steps", "epochs", "init", "data.t", "evals.", "schedule.", "optimizer.b")
"""Beginnings of fields that change neither the operations of a sample nor the parameters."""


class Cell(NamedTuple):
    """One run of a sweep.

    Attributes:
      id: hash of its config, and the name of its folder.
      config: resolved config, in which `init` of a branch names the cell that it branches from.
      trunk: id of that cell; empty for a run that begins at step 0.
    """

    id: str
    config: RunConfig
    trunk: str = ""

    def placed(self, folder: pathlib.Path) -> RunConfig:
        """Return the config to run in the sweep's folder."""
        if not self.trunk:
            return self.config
        return dataclasses.replace(self.config, init=str(folder.absolute() / self.trunk))


def branch(trunk: Mapping[str, Any], step: int, cooldown_steps: int) -> dict[str, Any]:
    """Build the fields of a run that goes on from a step of another one, and cools down to 0.

    It equals a run of `step + cooldown_steps` steps from the beginning, and takes only the last of
    them (Scaling Vision Transformers, arXiv:2106.04560, section 3.5: one run for many lengths).

    Args:
      trunk: fields of the long run, whose schedule must not depend on its length ("rsqrt",
        "constant"), and which saves at that step (`checkpoint_every`, `keep`).
    """
    schedule = {**trunk.get("schedule", {}), "cooldown_steps": cooldown_steps}
    if schedule.get("name") not in ("rsqrt", "constant"):
        raise ConfigError(
            f"A branch needs a trunk whose schedule does not depend on its length; "
            f"{schedule.get('name', 'cosine')!r} does. Choose 'rsqrt' or 'constant'."
        )
    return {
        **trunk,
        "init": dict(trunk),
        "init_step": step,
        "steps": step + cooldown_steps,
        "epochs": 0.0,
        "schedule": schedule,
    }


def cell_id(config: RunConfig) -> str:
    """Compute the id of a config: the first digits of the SHA-256 of its fields.

    Fields on which no result depends are left out, as when a run is resumed.
    """
    free = free_fields(config)
    fields = {key: value for key, value in flat_config(config).items() if key not in free}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:ID]


def read_cells(path: str) -> list[Cell]:
    """Read the cells of a sweep's file, in its order; a trunk comes before its first branch.

    Args:
      path: FILE or FILE:ARGUMENT, whose `get_sweep()` yields fields of runs. An `init` that is a
        mapping is the trunk of a branch, see `branch`.

    Raises:
      ConfigError: there is no such file, it yields nothing, or the same run twice.
    """
    cells: dict[str, Cell] = {}
    named = set()  # what the file itself yields, and not only as a trunk

    def add(fields: Mapping[str, Any], own: bool) -> str:
        fields, trunk = dict(fields), ""
        if isinstance(fields.get("init"), Mapping):
            trunk = add(fields["init"], own=False)
            fields["init"] = f"{TRUNK}{trunk}"
        config = resolve(fields, path, {})
        check(config)
        name = cell_id(config)
        if own and name in named:
            raise ConfigError(
                f"{path} yields the same run twice: {_told(config)}. Fields that say how a run is "
                f"watched and placed do not make another one ({', '.join(FREE[:4])} …)."
            )
        named.update([name] if own else [])
        cells.setdefault(name, Cell(name, config, trunk))
        return name

    for fields in call_file(path, "get_sweep"):
        add(fields, own=True)
    if not cells:
        raise ConfigError(f"get_sweep() of {path} yields nothing; it must yield fields of runs.")
    return list(cells.values())


def _told(config: RunConfig) -> str:
    return f"{config.model['name']}, {config.data.train}, seed {config.seed}"


def differing(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Select the fields of each cell's config that differ between cells."""
    flats = [flat_config(cell.config) for cell in cells]
    keys = sorted({key for flat in flats for key in flat})
    texts = {key: {json.dumps(flat.get(key)) for flat in flats} for key in keys}
    return [{key: flat.get(key) for key in keys if len(texts[key]) > 1} for flat in flats]


def make_rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Make the table of the cells, one row each.

    A row has the cell's `index` and `id`, `N` (trained parameters), `D` (samples that training
    sees), `images` (different ones), `flops` (counted; of a branch with its trunk's part) and
    `own_flops` (that the cell itself takes), `seed`, `trunk`, and `fields`, those that differ.
    """
    sizes: dict[tuple[str, str], tuple[int, int]] = {}
    counts: dict[str, Count] = {}
    rows = []
    for index, (cell, fields) in enumerate(zip(cells, differing(cells))):
        config = cell.config
        data = config.data.train, config.data.train_split
        if data not in sizes:
            source = open_source(*data)
            sizes[data] = len(source), len(source.info.classes)
        images, classes = sizes[data]
        steps = count_steps(config, images)
        alike = {k: v for k, v in flat_config(config).items() if not k.startswith(UNCOUNTED)}
        key = json.dumps([alike, classes])
        if key not in counts:
            config = dataclasses.replace(config, init="", init_step=0)
            counts[key] = count(config, images, classes)
        found = counts[key]._replace(steps=steps)
        rows.append({
            "index": index, "id": cell.id, "N": found.parameters, "D": steps * found.batch_size,
            "images": images, "flops": found.flops,
            "own_flops": found.flops * (steps - cell.config.init_step) / steps, "steps": steps,
            "seed": config.seed, "trunk": cell.trunk, "fields": fields,
        })  # fmt: skip
    return rows


def write_rows(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table of the cells, whole or not at all, whoever else writes it."""
    write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """Read the table of the cells; empty if it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def open_sweep(path: str, folder: pathlib.Path) -> tuple[list[Cell], list[dict[str, Any]]]:
    """Read a sweep's file, and its table in the folder, which is made if it is of other cells."""
    cells, table = read_cells(path), folder / "cells.jsonl"
    rows = read_rows(table)
    if [row["id"] for row in rows] != [cell.id for cell in cells]:
        rows = make_rows(cells)
        write_rows(table, rows)
    return cells, rows


def write_whole(path: pathlib.Path, text: str) -> None:
    """Write a file so that others see the old or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)

"""Worker of a sweep whose cells are no runs: each extends a chain of hashes, slowly."""

import hashlib
import json
import pathlib
import time

from vitjax.sweep.cells import Cell, read_cells, write_whole
from vitjax.sweep.work import work

STEPS = 8


def run(cell: Cell, folder: pathlib.Path) -> int:
    """Extend a chain of hashes from where the last attempt left it."""
    path = folder / cell.id / "chain.json"
    chain = json.loads(path.read_text()) if path.exists() else [cell.id]
    while len(chain) <= STEPS:
        time.sleep(0.02)
        chain.append(hashlib.sha256(chain[-1].encode()).hexdigest())
        write_whole(path, json.dumps(chain))
    result = {"id": cell.id, "step": STEPS, "metrics": {"test": {"loss": int(chain[-1][:4], 16)}}}
    write_whole(folder / cell.id / "result.json", json.dumps(result))
    return 0


def main(file: str, folder: pathlib.Path) -> int:
    """Work until all cells are done."""
    cells = read_cells(file)
    rows = [{"id": cell.id, "own_flops": 1.0} for cell in cells]
    return work(cells, rows, folder, run=run, seconds=1.0, wait=True)

"""What a sweep's results say: cells that are left out and why, odds of errors, fits, pictures."""

import json
import pathlib

import numpy as np
import pytest

from vitjax.sweep import fits, pictures
from vitjax.sweep.cells import Cell, read_cells
from vitjax.sweep.points import gather

SWEEP = """
from vitjax.sweep.cells import branch

def fields(width, steps, **more):
    return dict(steps=steps, model=dict(name="vit_ti2", width=width, depth=1, num_heads=2),
                data=dict(image_size=8), **more)

def get_sweep():
    for width in (8, 16, 32, 64):
        for steps in (100, 200, 400, 800):
            yield fields(width, steps)
    yield branch(fields(8, 300, schedule=dict(name="rsqrt")), 100, 20)
"""


def law(n: float, d: float) -> float:
    return 0.2 + 40 / n**0.5 + 300 / d**0.7


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Cell], list[dict], pathlib.Path]:
    """Sweep of which two cells, and a branch's trunk, are no points."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "grid.py").write_text(SWEEP)
    cells, rows = read_cells(str(folder / "grid.py")), []
    for i, cell in enumerate(cells):
        n, d = 12.0 * cell.config.model["width"] ** 2, 128.0 * cell.config.steps
        rows.append({"index": i, "id": cell.id, "N": n, "D": d, "images": 500, "flops": 6 * n * d})
        loss = law(n, d)
        metrics = {"loss": float("nan") if i == 5 else loss, "top1": 1 / (1 + loss)}
        if i != 3:
            (folder / cell.id).mkdir()
            result = {"id": cell.id, "metrics": {"test": metrics}}
            (folder / cell.id / "result.json").write_text(json.dumps(result))
    return cells, rows, folder


def test_cells_that_are_no_points_are_told(sweep) -> None:
    cells, rows, folder = sweep
    points = gather(cells, rows, folder)
    trunk = next(cell.trunk for cell in cells if cell.trunk)
    assert points.excluded == {
        cells[3].id: "free",
        cells[5].id: "its test/loss is nan, which has no logarithm",
        trunk: "trunk: its learning rate has not cooled down",
    }
    assert len(points.n) == len(cells) - 3 == 15
    odds = gather(cells, rows, folder, "test/top1", "images")
    np.testing.assert_allclose(odds.loss[0], law(odds.n[0], rows[0]["D"]))  # (1 - p) / p
    assert (odds.d == 500).all()
    with pytest.raises(ValueError, match="did you mean 'test/loss'"):
        gather(cells, rows, folder, "test/los")


def test_seeds_are_averaged(sweep) -> None:
    points = gather(*sweep)
    twice = points._replace(
        **{k: np.repeat(getattr(points, k), 2) for k in ("n", "d", "flops", "value", "group")},
        loss=np.repeat(points.loss, 2) * np.tile([0.5, 2.0], len(points.n)),
        ids=[name for name in points.ids for _ in range(2)],
    )
    means = twice.means()
    order = np.argsort(points.group)
    np.testing.assert_allclose(means.loss, points.loss[order])
    np.testing.assert_array_equal(means.n, points.n[order])


@pytest.mark.slow
def test_a_sweep_is_fitted_and_drawn(sweep) -> None:
    points = gather(*sweep)
    found = fits.fit_points(points, 60)
    assert found.both.found.parameters["alpha"] == pytest.approx(0.5, rel=0.01)
    rows = fits.predictions(found, ["1e5,2e5"], extrapolate=False)
    assert rows[0]["loss"] == pytest.approx(law(1e5, 2e5), rel=0.01)
    with pytest.raises(ValueError, match="D = 1e\\+08 is more than 10 times"):
        fits.predictions(found, ["1e4,1e8"], extrapolate=False)
    assert fits.predictions(found, ["1e4,1e8"], extrapolate=True)[0]["loss"] < law(1e4, 2e5)
    for text in ("1e4", "1e4,x", "0,1"):
        with pytest.raises(ValueError, match="--predict"):
            fits.predictions(found, [text], extrapolate=False)
    result = fits.to_json(found, "test/loss", "D", rows)
    best = result["optimal_N_exponent"]
    assert best["low"] <= best["value"] <= best["high"]
    assert best["value"] == pytest.approx(0.7 / 1.2, rel=0.02)
    assert result["held_out"]["error"] < 0.01 and len(result["held_out"]["ids"]) == 2
    assert json.loads(json.dumps(result)) == result
    text = fits.report(result)
    assert "2,500 starts reached this optimum" in text and "1 free" in text
    paths = pictures.draw(points, found, sweep[2], "grid", "test/loss", "D")
    assert {path.name for path in paths} >= {"size.png", "data.png", "compute.png", "frontier.png"}
    assert all(path.stat().st_size > 10_000 for path in paths)

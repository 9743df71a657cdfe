"""Pictures: what is drawn is what was given, on one scale that is shown; axes are named."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.analysis import plots
from vitjax.analysis.attention import Capture, Layer
from vitjax.analysis.check import Interval, Worth
from vitjax.analysis.distance import Distances
from vitjax.analysis.filters import Components
from vitjax.analysis.layers import Similarity
from vitjax.attention.rows import Place, Rows, rows_of_cells

IMAGE = np.linspace(0, 1, 12 * 16 * 3).reshape(12, 16, 3)
PLACE = Place(0, 3, 4)


def layer(agents: bool = False) -> Layer:
    """Two heads on a 3×4 map of stride 4; two keys: pixel (0, 0), and one between four pixels."""
    boxes = jnp.asarray([[0.0, 0, 1, 1], [1.5, 1.5, 2.5, 2.5]]).reshape(1, 1, 1, 2, 4)
    weights = jnp.broadcast_to(jnp.asarray([[0.8, 0.2], [0.5, 0.5]])[None, :, None], (1, 2, 12, 2))
    own = None
    if agents:
        cells = jnp.zeros((1, 2, 2, 12)).at[:, :, 0, 5].set(1).at[:, :, 1, 6].set(1)
        first = jnp.broadcast_to(jnp.asarray([1.0, 1, 2, 2]), (1, 1, 2, 1, 4))
        own = Rows(cells[..., :1] * 0 + 1, first, Place(0, 1, 2), PLACE)
    return Layer(Rows(weights, boxes, PLACE, PLACE, own), "stage_2/block_1", 4, (12, 16))


def panels(figure: Any) -> list[Any]:
    """Axes with a picture, without colour bars."""
    figure.canvas.draw()
    return [a for a in figure.axes if a.images and a.get_label() != "<colorbar>"]


def test_heads_share_one_scale_which_is_shown() -> None:
    figure = plots.plot_heads(IMAGE, layer(), (5, 9))
    first, *heads = panels(figure)
    assert [a.get_title() for a in heads] == ["head 0", "head 1"]
    assert all(a.images[-1].get_clim() == (0, pytest.approx(0.8)) for a in heads)
    np.testing.assert_allclose(heads[0].images[-1].get_array()[:4, :4], 0.8)
    assert figure.axes[-1].get_ylabel() == "attention weight"
    (mark,) = first.lines
    assert (mark.get_ydata()[0], mark.get_xdata()[0]) == (5, 9)


def test_circles_have_areas_by_their_weights() -> None:
    figure = plots.plot_points(IMAGE, layer(), (5, 9))
    one, two = (axis.collections[0] for axis in panels(figure))
    np.testing.assert_allclose(one.get_sizes(), [260, 65])
    np.testing.assert_allclose(two.get_sizes(), [162.5, 162.5])
    # Centres: of the first pixel of 4×4, and between pixels; an image's pixel 0 is drawn at 0.
    np.testing.assert_allclose(one.get_offsets(), [[1.5, 1.5], [7.5, 7.5]])
    assert len(panels(plots.plot_points(IMAGE, layer(), (5, 9), head=1))) == 1
    with pytest.raises(ValueError, match="heads 0 to 1, and no head 2"):
        plots.plot_points(IMAGE, layer(), (5, 9), head=2)


def test_routes_show_the_regions_and_agents_theirs() -> None:
    _, regions, heat = panels(plots.plot_routes(IMAGE, layer(), (5, 9)))
    shown = np.asarray(regions.images[0].get_array())
    seen = np.isclose(shown, IMAGE).all(axis=-1)
    assert seen[:4, :4].all() and seen[4:, 4:12].all() and not seen[4:, :4].any()
    np.testing.assert_allclose(np.asarray(heat.images[-1].get_array())[0, 0], 0.65)
    _, routed, _ = panels(plots.plot_agents(IMAGE, layer(agents=True), (5, 9)))
    seen = np.isclose(np.asarray(routed.images[0].get_array()), IMAGE).all(axis=-1)
    assert seen.sum() == 16 and seen[4:8, 4:8].all()
    with pytest.raises(ValueError, match="attends without agents"):
        plots.plot_agents(IMAGE, layer(), (5, 9))


def test_what_is_near_a_query_is_drawn_around_it() -> None:
    rows = rows_of_cells(jnp.eye(12)[None, None], PLACE, PLACE)
    (panel,) = panels(plots.plot_near(Layer(rows, "a", 4, (12, 16)), (1, 5), radius=2))
    drawn = np.ma.filled(panel.images[0].get_array(), np.nan)
    assert drawn.shape == (5, 5) and drawn[2, 2] == 1 and np.nansum(drawn) == 1
    assert np.isnan(drawn[:2]).all() and np.isnan(drawn[:, 0]).all()  # above and left of the map
    with pytest.raises(ValueError, match="no place on the image"):
        plots.plot_near(layer(), 0)


def test_axes_have_names_and_units() -> None:
    noise = np.asarray(jax.random.uniform(jax.random.key(0), (3, 4, 3, 4)))
    interval = Interval(0.5, 0.4, 0.6)
    worth = Worth(
        "rollout", interval, interval, np.array([1, 0.5]), np.array([0.5, 1]), None, False
    )
    capture = Capture(jnp.zeros((1, 2)), (layer(), layer()), False)
    figures = {
        "mean attention distance (pixels)": plots.plot_distances(
            Distances(["a", "b"], [np.array([1.0, 2]), np.array([3.0, 4])])
        ),
        "cosine similarity": plots.plot_positions(noise),
        "attention of an image's pixel": plots.plot_depth(IMAGE, capture, (5, 9)),
        "share of the output": plots.plot_rollout(IMAGE, IMAGE[..., 0]),
        "row (pixels)": plots.plot_field(noise[0, 0]),
        "linear CKA": plots.plot_similarity(Similarity(["a"] * 3, ["b"] * 4, noise[0, 0])),
        "probability of the class": plots.plot_check([worth]),
    }
    for label, figure in figures.items():
        figure.canvas.draw()
        assert label in {axis.get_ylabel() for axis in figure.axes}
    legend = figures["probability of the class"].axes[0].get_legend().get_texts()[0].get_text()
    assert legend == "rollout: 0.50 [0.40, 0.60] (no better)"
    filters = plots.plot_filters(Components(noise[..., :3, :3].swapaxes(1, 2), np.full(3, 0.25)))
    assert [a.get_title() for a in panels(filters)] == ["25.0%"] * 3

"""The page: what is packed comes back, in a browser too, and it is pointed at, tapped and read."""

import html.parser
from collections.abc import Iterator
from typing import Any

import jax
import matplotlib
import numpy as np
import pytest

from tests.analysis.small import FAMILIES, captured, small
from tests.browser import Browser, browser, needs_browser
from vitjax.analysis.attention import Capture, Layer, capture
from vitjax.analysis.page import Page, make_view
from vitjax.analysis.page.pack import FINE, Grid, choose_steps, kind_of, quantize, restore
from vitjax.analysis.rollout import rollout, rollouts
from vitjax.attention.rows import Place

NAMES = ("deit_tiny_distilled", "swin_tiny", "pvt_v2_b0", "dat_tiny", "debiformer_tiny")
KINDS = ("pixels", "regions", "patches", "points", "agents")


@pytest.fixture(scope="module")
def seen() -> dict[str, Capture]:
    """Captures of one image by models whose keys are of every kind."""
    found = {}
    for name in NAMES:
        model, variables, images = small(name)
        found[name] = capture(model, variables, images[:1])
    return found


@pytest.fixture(scope="module")
def page(seen: dict[str, Capture]) -> Page:
    rng = np.random.default_rng(0)
    views = []
    for name, one in seen.items():
        pixels = rng.integers(0, 255, (*one.layers[0].image_size, 3), np.uint8)
        views.append(make_view(one, pixels, model=name, image="</script>.png"))
    return Page(views)


@pytest.fixture(scope="module")
def opened(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = page.save(tmp_path_factory.mktemp("page") / "look.html")
    with browser() as window:
        window.size(1280, 800)
        window.open(path)
        yield window
        assert window.errors() == []


@pytest.mark.slow
def test_there_are_layers_of_every_kind(seen: dict[str, Capture]) -> None:
    assert {kind_of(layer.rows) for one in seen.values() for layer in one.layers} == set(KINDS)


@pytest.mark.parametrize("low", [0.0, -0.3])
def test_rounded_weights_are_near(low: float) -> None:
    weights = np.linspace(low, 0.7, 1001, dtype=np.float32)
    whole, scale = quantize(weights, FINE)
    assert scale["most"] == np.float32(0.7) and (scale["zero"] > 0) == (low < 0)
    again = restore(whole, scale)
    steps = scale["levels"] - scale["zero"]
    assert np.abs(again - weights).max() <= 0.7 / steps
    small = np.abs(weights) < 0.007  # a hundredth of the largest: a tenth of the error
    assert np.abs(again - weights)[small].max() <= 0.7 / steps * 0.11
    assert restore(*quantize(np.zeros(3, np.float32), FINE)).tolist() == [0, 0, 0]


@pytest.mark.slow
def test_the_heaviest_maps_are_thinned_first(seen: dict[str, Capture]) -> None:
    layers = seen["swin_tiny"].layers
    assert choose_steps(layers, 10**9) == [1, 1, 1]
    full = [layer.rows.weights.size for layer in layers]
    steps = choose_steps(layers, sum(full) - 1)
    assert steps == [2, 2, 1]
    assert Grid(Place(1, 5, 7), 2).numbers().tolist() == [0, 9, 11, 13, 23, 25, 27]


@pytest.mark.slow
def test_a_small_page_keeps_fewer_queries_and_says_so(seen: dict[str, Capture]) -> None:
    one = seen["deit_tiny_distilled"]
    pixels = np.zeros((*one.layers[0].image_size, 3), np.uint8)
    view = make_view(one, pixels, model="a", image="b", megabytes=0.041)
    assert {layer["step"] for layer in view.said["layers"]} == {2}
    assert len(view.arrays) * 4 / 3 <= 1000


def test_rollouts_are_those_of_each_query(seen: dict[str, Capture]) -> None:
    for name in ("swin_tiny", "debiformer_tiny"):
        one = seen[name]
        reads, own = rollouts(one, np.array([0, 3]))
        np.testing.assert_allclose(reads, rollout(one), atol=1e-6)
        stride = one.layers[-1].stride
        np.testing.assert_allclose(own[0], rollout(one, (0, 0)), atol=1e-6)
        y, x = divmod(3, one.layers[-1].rows.queries.width)
        np.testing.assert_allclose(own[1], rollout(one, (y * stride, x * stride)), atol=1e-6)


class Addresses(html.parser.HTMLParser):
    """All src and href of a page, and how many elements there are that fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.links = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for key, value in attrs if key in ("src", "href")]
        self.links += tag in ("link", "base", "object", "embed")


@pytest.mark.slow
def test_the_page_needs_no_network(page: Page) -> None:
    reader = Addresses()
    reader.feed(str(page))
    assert not reader.links and not [a for a in reader.found if "http" in a]
    for word in ("fetch(", "import(", "XMLHttpRequest", "@import", "url("):
        assert word not in str(page)


@pytest.mark.slow
def test_a_notebook_shows_it_in_a_frame(page: Page) -> None:
    shown = page._repr_html_()
    assert shown.startswith("<iframe") and shown.endswith("</iframe>")
    assert shown.count("<") == 2  # all else is escaped


def test_what_is_no_view_is_refused(seen: dict[str, Capture], page: Page) -> None:
    pixels = np.zeros((45, 61, 3), np.uint8)
    with pytest.raises(ValueError, match="A capture of 2 images"):
        make_view(captured("swin_tiny"), pixels, model="a", image="b")
    with pytest.raises(ValueError, match="2 names of classes, and the model has 5"):
        make_view(seen["swin_tiny"], pixels, model="a", image="b", classes=("x", "y"))
    with pytest.raises(ValueError, match="at least one view"):
        Page([])
    with pytest.raises(ValueError, match="each image once from each model"):
        Page([page.views[0], page.views[0]])


def as_packed(layer: Layer) -> Any:
    """The layer's rows with weights as the page has them."""

    def rounded(rows: Any) -> Any:
        again = restore(*quantize(np.asarray(rows.weights), FINE))
        weights = jax.numpy.asarray(again, jax.numpy.float32)
        return rows.replace(weights=weights, agents=rows.agents and rounded(rows.agents))

    return rounded(layer.rows)


@pytest.mark.slow
@needs_browser
def test_maps_in_the_browser_equal_the_arrays(opened: Browser, seen: dict[str, Capture]) -> None:
    queries = [{"y": 0.1, "x": 0.2}, {"y": 0.93, "x": 0.95}, {"y": 0.5, "x": 0.4}, {"token": 0}]
    script = """
      const [models, queries] = arguments;
      const maps = (m, l, heads) => queries.map((q) => [-1, 0, heads - 1].map((h) => {
        const map = look.map(m, l, h, q);
        return map && [Array.from(map.weights), map.tokens, Array.from(map.reach)];
      }));
      return look.panes.map((p, m) => p.view.layers.map(({ heads }, l) => maps(m, l, heads)));
    """
    found = opened.run(script, len(NAMES), queries)
    compared = 0
    for (name, one), of_model in zip(seen.items(), found):
        for layer, of_layer in zip(one.layers, of_model):
            dense = np.asarray(as_packed(layer).dense()[0])
            dense = np.stack([dense.mean(axis=0), dense[0], dense[-1]])
            for query, of_query in zip(queries, of_layer):
                if (index := index_of(layer, query)) is None:
                    assert of_query == [None] * 3
                    continue
                tokens = layer.rows.keys.tokens
                for head, (weights, on_tokens, _) in enumerate(of_query):
                    want = dense[head, index]
                    np.testing.assert_allclose(weights, want[tokens:], atol=2e-6, err_msg=name)
                    assert on_tokens == pytest.approx(want[:tokens].sum(), abs=1e-6)
                    compared += 1
                seen_by = np.asarray(layer.rows.of(index).reach())[0, :, 0, tokens:].any(axis=0)
                if layer.rows.agents is None:
                    assert (np.array(of_query[0][2]) > 0).tolist() == seen_by.tolist()
    assert compared > 100


def index_of(layer: Layer, query: dict[str, float]) -> int | None:
    try:
        if "token" in query:
            return layer.index(int(query["token"]))
        height, width = layer.image_size
        return layer.index((int(query["y"] * height), int(query["x"] * width)))
    except ValueError:
        return None


def stage_place(window: Browser, y: float, x: float) -> tuple[float, float]:
    box = window.run("""
      const stage = document.querySelector(".stage");
      stage.scrollIntoView({ block: "center" });
      const box = stage.getBoundingClientRect();
      return [box.left, box.top, box.width, box.height];
    """)
    return box[0] + x * box[2], box[1] + y * box[3]


TILE = """
  const canvas = look.panes[0].tiles.get(JSON.stringify({ layer: 1, head: 1 })).firstChild;
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return [canvas.height, canvas.width, ...data];
"""


@needs_browser
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_a_click_on_a_patch_changes_the_colours_to_those_of_its_array(
    opened: Browser, seen: dict[str, Capture], width: int, height: int
) -> None:
    touch = width < 500
    opened.size(width, height, touch)
    opened.run("look.ask({ y: 0.01, x: 0.01 }, true)")
    opened.settle()
    before = opened.run(TILE)
    opened.click(*stage_place(opened, 0.7, 0.65), touch=touch)
    after = opened.run(TILE)
    assert after != before
    layer = seen["deit_tiny_distilled"].layers[1]
    size = layer.image_size
    index = layer.index((int(0.7 * size[0]), int(0.65 * size[1])))
    row = as_packed(layer).of(index).dense()[0, 1, 0]
    even = 1 / len(row)
    at = np.log(np.asarray(row)[layer.rows.keys.tokens :] / even / 0.1) / np.log(1000)
    number = np.rint(255 * np.clip(at, 0, 1)).astype(int)
    colours = (255 * matplotlib.colormaps["viridis"](np.arange(256))[:, :3]).round()
    drawn = np.array(after[2:]).reshape(-1, 4)
    assert tuple(after[:2]) == layer.map_size
    # A colour may be the next one where rounding of the browser's logarithm decides.
    near = [
        np.abs(drawn[:, :3] - colours[np.clip(number + d, 0, 255)]).max(axis=1) for d in (-1, 0, 1)
    ]
    assert np.min(near, axis=0).max() == 0 and drawn[:, 3].min() == 255
    assert opened.run("return document.documentElement.scrollWidth") == width
    told = opened.run("return document.querySelector('.told').textContent")
    assert f"Row {(index - 2) // 5}, column {(index - 2) % 5}" in told and "× even" in told


@needs_browser
def test_keys_move_the_query_and_go_through_the_grid(opened: Browser) -> None:
    opened.size(1280, 800)
    query = "return [look.state.query, look.panes[0].pick]"
    opened.run("look.panes[0].choose({layer: 1, head: 0}); look.ask({y: 0.5, x: 0.5}, true);")
    opened.run("document.querySelector('.stage').focus()")
    opened.press("\ue014", "\ue015")  # right, down: by one patch of 8 pixels
    where, _ = opened.run(query)
    assert where == {"y": pytest.approx(20 / 24), "x": pytest.approx(28 / 40)}
    opened.press("t")
    assert opened.run(query)[0] == {"token": 0}
    opened.press("t")
    opened.run("look.panes[0].tiles.get(JSON.stringify(look.panes[0].pick)).focus()")
    opened.press("\ue014", "\ue013")  # right, up
    assert opened.run(query)[1] == {"layer": 0, "head": 1}
    chosen = "return document.activeElement.getAttribute('aria-label')"
    assert opened.run(chosen).startswith("block_0, head 1, looks ")


@needs_browser
def test_the_pointer_asks_and_the_kept_place_comes_back(opened: Browser) -> None:
    opened.size(1280, 800)
    opened.run("look.ask({y: 0.5, x: 0.5}, true)")
    opened.move(*stage_place(opened, 0.2, 0.9))
    assert opened.run("return look.state.query.x") == pytest.approx(0.9, abs=0.01)
    opened.move(2, 2)
    assert opened.run("return look.state.query") == {"y": 0.5, "x": 0.5}


@needs_browser
def test_everything_has_words_and_both_schemes_have_their_colours(opened: Browser) -> None:
    silent = """
      const named = (e) => e.getAttribute("aria-label") || e.textContent.trim();
      return [...document.querySelectorAll("button, [role=img], [role=application]")]
        .filter((e) => !named(e)).length;
    """
    assert opened.run(silent) == 0
    back = "return getComputedStyle(document.body).backgroundColor"
    found = []
    for scheme in ("light", "dark"):
        opened.scheme(scheme)
        opened.settle()
        found.append(opened.run(back))
    opened.scheme("light")
    assert len(set(found)) == 2


@needs_browser
def test_scales_are_shown_and_the_same_for_all_queries(opened: Browser) -> None:
    opened.run("""
      const scale = document.getElementById("scale");
      scale.value = "layer";
      scale.dispatchEvent(new Event("change"));
      look.panes[1].choose({layer: 0, head: 0});
    """)
    ticks = """
      const pane = document.querySelectorAll(".pane")[1];
      return [...pane.querySelectorAll(".ticks span")].map((tick) => tick.textContent);
    """
    found = []
    for y in (0.1, 0.8):
        opened.run("look.ask({y: arguments[0], x: 0.3}, true)", y)
        opened.settle()
        found.append(opened.run(ticks))
    assert found[0] == found[1] and found[0][0] == "0"
    top = opened.run("return look.panes[1].view.layers[0].top")
    assert float(found[0][-1].removeprefix("≥ ")) == pytest.approx(top, rel=0.01)
    opened.run("document.getElementById('scale').value = 'even'; look.state.scale = 'even'")


@pytest.mark.slow
def test_every_family_makes_a_view() -> None:
    for name in ("cait_xxs24", "mobile_former_26m", "volo_d1"):
        assert name in FAMILIES
        model, variables, images = small(name)
        one = capture(model, variables, jax.numpy.asarray(images[:1]))
        pixels = np.zeros((*images.shape[1:3], 3), np.uint8)
        said = make_view(one, pixels, model=name, image="a").said
        assert len(said["layers"]) == len(one.layers)
        assert ("none" in said["rollout"]) == (name == "mobile_former_26m")

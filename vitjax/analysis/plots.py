"""Pictures of what a model has learnt. Each function draws one figure of arrays, and returns it.

Colours tell apart for colour-blind readers (viridis, cividis; Okabe and Ito's). Scales are shown:
panels of one figure share one, which a colour bar gives.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from vitjax.analysis.attention import Capture, Layer, Query, check_head, paint
from vitjax.analysis.check import RANDOM, Worth
from vitjax.analysis.distance import Distances
from vitjax.analysis.filters import Components
from vitjax.analysis.layers import Similarity
from vitjax.analysis.probes import LayerProbes
from vitjax.figures import new_figure

HEAT = "viridis"
ORANGE, BLUE, GREEN, BLACK = "#D55E00", "#56B4E9", "#009E73", "#000000"
WIDTH = 7.0
"""Inches: as wide as a notebook shows a figure without shrinking it."""


def plot_heat(
    image: Float[np.ndarray, "H W c"],
    maps: Sequence[Float[np.ndarray, "H W"]],
    titles: Sequence[str],
    *,
    query: Query | None = None,
    label: str = "attention weight",
) -> Any:
    """Draw the image and maps over it, all of one scale.

    Args:
      image: pixels from 0 to 1.
      query: a pixel to mark.
      label: what the maps are, for the colour bar.
    """
    columns = min(4, len(maps) + 1)
    figure, axes = _grid(len(maps) + 1, columns, image.shape[0] / image.shape[1])
    shown = _show(axes[0], image, "image")
    high = max(float(np.max(m)) for m in maps)
    low = min(0.0, min(float(np.min(m)) for m in maps))
    for axis, heat, title in zip(axes[1:], maps, titles):
        _show(axis, image, title, faded=True)
        shown = axis.imshow(heat, cmap=HEAT, vmin=low, vmax=high, alpha=0.75)
    for axis in axes[: len(maps) + 1]:
        _mark(axis, query)
    figure.colorbar(shown, ax=list(axes), shrink=0.8, label=label)
    return figure


def plot_heads(
    image: Float[np.ndarray, "H W c"], layer: Layer, query: Query, *, number: int = 0
) -> Any:
    """Draw where each head of a layer looks from a query.

    Args:
      number: of the image in the batch that was captured.
    """
    maps = layer.on_image(query)[number]
    titles = [f"head {i}" for i in range(len(maps))]
    figure = plot_heat(image, list(maps), titles, query=query)
    figure.suptitle(f"{layer.name}: attention of {_name(query)}", fontsize=10)
    return figure


def plot_rollout(
    image: Float[np.ndarray, "H W c"], heat: Float[np.ndarray, "H W"], title: str = "rollout"
) -> Any:
    """Draw an attention rollout beside its image (ViT, figure 6)."""
    return plot_heat(image, [heat], [title], label="share of the output")


def plot_distances(distances: Distances) -> Any:
    """Draw the mean attention distance of each head over depth (ViT, figure 7, right)."""
    figure = new_figure(WIDTH, 3.6)
    axes = figure.subplots()
    for i, values in enumerate(distances.pixels):
        axes.scatter(np.full(len(values), i), np.sort(values), s=18, color=BLUE, edgecolor=BLACK,
                     linewidth=0.4, label="a head" if i == 0 else None)  # fmt: skip
    means = [float(np.mean(values)) for values in distances.pixels]
    axes.plot(range(len(means)), means, color=ORANGE, label="mean of the layer")
    top = 1.08 * max(float(np.max(values)) for values in distances.pixels)
    axes.set(xlabel="layer", ylabel="mean attention distance (pixels)", ylim=(0, top or 1))
    step = -(-len(means) // 16)
    names = distances.names[::step]
    axes.set_xticks(range(0, len(means), step), names, rotation=60, ha="right", fontsize=7)
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    return figure


def plot_filters(components: Components) -> Any:
    """Draw principal components of patch filters, each from its least to its largest value."""
    filters = components.filters
    figure, axes = _grid(len(filters), min(7, len(filters)), 1.0)
    limit = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    pictures = 0.5 + filters / (2 * np.maximum(limit, np.finfo(np.float32).tiny))
    if filters.shape[-1] != 3:
        pictures = pictures.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    for axis, picture, share in zip(axes, pictures, components.variance):
        _show(axis, picture, f"{share:.1%}")
    figure.suptitle(
        "Principal components of the patch filters, and their share of the variance. "
        "Each has its own scale; grey is 0.",
        fontsize=8,
    )
    return figure


def plot_positions(similarity: Float[np.ndarray, "h w h w"], limit: int = 7) -> Any:
    """Draw the similarity of position embeddings: one panel for each patch (ViT, figure 7, centre).

    Args:
      limit: panels along a side; of larger grids every second, third … patch has one.
    """
    rows, columns = similarity.shape[:2]
    ys, xs = (np.unique(np.linspace(0, n - 1, min(n, limit)).round().astype(int))
              for n in (rows, columns))  # fmt: skip
    shape = (len(ys) * rows) / (len(xs) * columns)
    figure = new_figure(WIDTH, 0.8 * WIDTH * shape + 0.5)
    axes, shown = figure.subplots(len(ys), len(xs), squeeze=False), None
    for i, y in enumerate(ys):
        for j, x in enumerate(xs):
            shown = axes[i, j].imshow(similarity[y, x], cmap=HEAT, vmin=-1, vmax=1)
            axes[i, j].set(xticks=[], yticks=[])
            if j == 0:
                axes[i, j].set_ylabel(str(y), fontsize=8)
            if i == len(ys) - 1:
                axes[i, j].set_xlabel(str(x), fontsize=8)
    figure.supxlabel("column of the patch", fontsize=9)
    figure.supylabel("row of the patch", fontsize=9)
    figure.colorbar(shown, ax=list(axes.flat), shrink=0.8, label="cosine similarity")
    return figure


def plot_points(
    image: Float[np.ndarray, "H W c"],
    layer: Layer,
    query: Query,
    *,
    head: int | None = None,
    number: int = 0,
) -> Any:
    """Draw a query's keys as circles whose area is their attention (DAT, figures 1 and 5).

    Args:
      head: one head; None for all, a panel each.
      number: of the image in the batch that was captured.
    """
    heads = range(layer.heads) if head is None else [head]
    for i in heads:
        check_head(layer, i)
    points = layer.points(query)[number]
    largest = float(max(points[i, :, 2].max() for i in heads))
    sides = points[list(heads), :, 0], points[list(heads), :, 1]
    figure, axes = _grid(len(heads), min(3, len(heads)), image.shape[0] / image.shape[1])
    for axis, i in zip(axes, heads):
        _show(axis, image, f"head {i}", faded=True)
        _circles(axis, points[i], largest)
        _mark(axis, query)
        # Points may lie outside of the image; all panels show as much of it.
        reach = [(min(-1, p.min() - 9), max(n, p.max() + 9)) for n, p in zip(image.shape, sides)]
        axis.set(xlim=reach[1], ylim=reach[0][::-1])
    figure.suptitle(f"{layer.name}: keys of {_name(query)}. A circle's area is its weight; the "
                    f"largest is {largest:.3g}.", fontsize=9)  # fmt: skip
    return figure


def plot_depth(image: Float[np.ndarray, "H W c"], capture: Capture, query: Query,
               *, number: int = 0) -> Any:  # fmt: skip
    """Draw the mean attention of a pixel's query in every layer."""
    layers = [layer for layer in capture.layers if layer.rows.queries.height]
    maps = [layer.on_image(query)[number].mean(axis=0) for layer in layers]
    # Coarser maps have fewer pixels for the same sum: a weight for each pixel of the image.
    maps = [m / layer.stride**2 for m, layer in zip(maps, layers)]
    figure = plot_heat(image, maps, [layer.name for layer in layers], query=query,
                       label="attention of an image's pixel")  # fmt: skip
    figure.suptitle(f"Mean of the heads: attention of {_name(query)}", fontsize=10)
    return figure


def plot_routes(
    image: Float[np.ndarray, "H W c"], layer: Layer, query: Query, *, number: int = 0
) -> Any:
    """Draw a query, the regions it is routed to, and its attention (BiFormer, figure 4).

    The paper shows the last block of stage 3: `capture.last_of("stage_2")`. It serves windows and
    neighbourhoods too.

    Args:
      number: of the image in the batch that was captured.
    """
    heat = layer.on_image(query)[number].mean(axis=0)
    seen = paint(layer.reach(query)[number], layer.stride, layer.image_size)
    figure, axes = _grid(3, 3, image.shape[0] / image.shape[1])
    _show(axes[0], image, "query")
    _show(axes[1], _dimmed(image, seen), "keys: the regions seen")
    lost = layer.outside(query)[number].mean()
    _heat_panel(figure, axes, image, heat, f"mean of heads; {lost:.0%} is outside")
    for axis in axes:
        _mark(axis, query)
    figure.suptitle(f"{layer.name}: {_name(query)}", fontsize=10)
    return figure


def plot_agents(
    image: Float[np.ndarray, "H W c"],
    layer: Layer,
    query: Query,
    *,
    head: int = 0,
    number: int = 0,
) -> Any:
    """Draw a query's agents, the regions that its first agent is routed to, and where all lead.

    See DeBiFormer, arXiv:2410.08582, section 3.3.

    Args:
      number: of the image in the batch that was captured.

    Raises:
      ValueError: the layer has no agents, or no such head.
    """
    if layer.rows.agents is None:
        raise ValueError(
            f"Layer {layer.name!r} attends without agents; choose one of a DeBiFormer's deformable "
            f"blocks, or draw its rows."
        )
    check_head(layer, head)
    points = layer.points(query)[number, head]
    first = int(np.argmax(points[:, 2]))
    routed = np.asarray(layer.rows.agents.of(first).reach())[number].any(axis=0)
    routed = paint(routed.reshape(layer.map_size), layer.stride, layer.image_size)
    figure, axes = _grid(3, 3, image.shape[0] / image.shape[1])
    largest = float(points[first, 2])
    _show(axes[0], image, "agents: area is attention", faded=True)
    _circles(axes[0], points, largest)
    _show(axes[1], _dimmed(image, routed), "regions of the first agent")
    _circles(axes[1], points[first : first + 1], largest)
    heat = layer.on_image(query)[number, head]
    lost = layer.outside(query)[number, head]
    _heat_panel(figure, axes, image, heat, f"by way of agents; {lost:.0%} is outside")
    for axis in axes:
        _mark(axis, query)
        axis.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    figure.suptitle(f"{layer.name}, head {head}: {_name(query)}", fontsize=10)
    return figure


def plot_near(layer: Layer, query: Query, *, radius: int = 3, number: int = 0) -> Any:
    """Draw a query's weights of the map's pixels around it, for each head: outlook weights (VOLO).

    Args:
      radius: pixels of the map on each side of the query; what lies outside of the map is white.
      number: of the image in the batch that was captured.

    Raises:
      ValueError: the query is a token.
    """
    if isinstance(query, int):
        raise ValueError(f"Token {query} has no place on the image; give a pixel (y, x).")
    place = layer.rows.queries
    y, x = divmod(layer.index(query) - place.tokens, place.width)
    maps = np.pad(layer.on_map(query)[number], ((0, 0), (radius,) * 2, (radius,) * 2),
                  constant_values=np.nan)  # fmt: skip
    maps = maps[:, y : y + 2 * radius + 1, x : x + 2 * radius + 1]
    figure, axes = _grid(len(maps), min(6, len(maps)), 1.0)
    reach, drawn = radius + 0.5, None
    for i, (axis, near) in enumerate(zip(axes, maps)):
        axis.set_title(f"head {i}", fontsize=8)
        drawn = axis.imshow(near, cmap=HEAT, vmin=min(0, np.nanmin(maps)), vmax=np.nanmax(maps),
                            extent=(-reach, reach, reach, -reach))  # fmt: skip
        axis.set_axis_on()
        axis.tick_params(labelsize=7)
        axis.locator_params(integer=True)
    figure.supxlabel("columns from the query (pixels of the map)", fontsize=8)
    figure.supylabel("rows from the query", fontsize=8)
    figure.colorbar(drawn, ax=list(axes), shrink=0.8, label="weight")
    figure.suptitle(f"{layer.name}: {_name(query)}", fontsize=10)
    return figure


def plot_field(field: Float[np.ndarray, "H W"], title: str = "effective receptive field") -> Any:
    """Draw an effective receptive field, in logarithmic colours."""
    import matplotlib.colors

    figure = new_figure(4.6, 3.8)
    axes = figure.subplots()
    high = float(field.max())
    norm = matplotlib.colors.LogNorm(vmin=1e-4 * high, vmax=high, clip=True)
    drawn = axes.imshow(field, cmap=HEAT, norm=norm)
    axes.set(xlabel="column (pixels)", ylabel="row (pixels)", title=title)
    figure.colorbar(drawn, ax=axes, shrink=0.75, label="share of the gradient")
    return figure


def plot_similarity(similarity: Similarity) -> Any:
    """Draw the CKA of the layers of two models."""
    figure = new_figure(5.4, 4.6)
    axes = figure.subplots()
    drawn = axes.imshow(similarity.cka, cmap=HEAT, vmin=0, vmax=1, origin="lower")
    for set_ticks, names in ((axes.set_yticks, similarity.first), (axes.set_xticks,
                                                                   similarity.second)):  # fmt: skip
        step = -(-len(names) // 24)
        set_ticks(range(0, len(names), step), names[::step], fontsize=7)
    axes.tick_params(axis="x", rotation=90)
    axes.set(xlabel="layer of the second model", ylabel="layer of the first model")
    figure.colorbar(drawn, ax=axes, label="linear CKA")
    return figure


def plot_probes(found: LayerProbes) -> Any:
    """Draw the accuracy of the probes over depth, and that of always saying the same class."""
    figure = new_figure(WIDTH, 3.6)
    axes = figure.subplots()
    places = range(len(found.names))
    for (name, values), colour, marker in zip(found.top1.items(), (ORANGE, BLUE, GREEN), "os^"):
        axes.plot(places, 100 * values, color=colour, marker=marker, label=name)
    axes.axhline(100 * found.chance, color=BLACK, linestyle="--", linewidth=1,
                 label="most frequent class")  # fmt: skip
    axes.set(xlabel="block", ylabel="accuracy of its probe (%)", ylim=(0, 102))
    axes.set_xticks(places, found.names, rotation=60, ha="right", fontsize=7)
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    return figure


def plot_check(found: Sequence[Worth]) -> Any:
    """Draw the curves of deletion and insertion of each method, and the areas below them."""
    figure = new_figure(WIDTH, 3.4)
    sides = figure.subplots(1, 2, sharey=True)
    styles = [(c, s) for s in ("-", "--", ":") for c in (ORANGE, BLUE, GREEN, BLACK)]
    for worth, (colour, line) in zip(found, styles):
        for axis, curve, area in zip(
            sides, (worth.deletion_curve, worth.insertion_curve), (worth.deletion, worth.insertion)
        ):
            share = np.linspace(0, 100, len(curve))
            label = f"{worth.name}: {area.mean:.2f} [{area.low:.2f}, {area.high:.2f}]"
            label += "" if worth.beats_random or worth.name == RANDOM else " (no better)"
            axis.plot(share, curve, color=colour, linestyle=line, label=label)
    for axis, title in zip(sides, ("deletion: lower is better", "insertion: higher is better")):
        axis.set(xlabel="pixels removed (%)" if axis is sides[0] else "pixels brought back (%)",
                 title=title, ylim=(0, 1))  # fmt: skip
        axis.legend(fontsize=6, frameon=False, title="area [95 % interval]", title_fontsize=6)
        axis.grid(alpha=0.25)
    sides[0].set_ylabel("probability of the class")
    return figure


def _grid(count: int, columns: int, ratio: float) -> tuple[Any, np.ndarray]:
    """Return a figure with panels in rows; `ratio` is a panel's height over its width."""
    rows = -(-count // columns)
    side = min(WIDTH / columns, 2.6)
    figure = new_figure(WIDTH, rows * (0.88 * side * ratio + 0.25) + 0.4)
    axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axis in axes:
        axis.set_axis_off()
    return figure, axes


def _show(axis: Any, image: np.ndarray, title: str, *, faded: bool = False) -> Any:
    if faded:  # grey, so that colours are those of the map
        image = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    axis.set_title(title, fontsize=8)
    return axis.imshow(np.clip(image, 0, 1))


def _dimmed(image: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the image with what is not seen made pale."""
    return np.where(seen[..., None], image, 0.75 + 0.25 * image)


def _heat_panel(figure: Any, axes: np.ndarray, image: np.ndarray, heat: np.ndarray,
                title: str) -> None:  # fmt: skip
    """Draw a map on the last panel, and its scale beside all."""
    _show(axes[-1], image, title, faded=True)
    drawn = axes[-1].imshow(heat, cmap=HEAT, vmin=0, vmax=float(heat.max()) or 1, alpha=0.75)
    figure.colorbar(drawn, ax=list(axes), shrink=0.8, label="attention weight")


def _mark(axis: Any, query: Query | None) -> None:
    if isinstance(query, tuple):
        axis.plot(query[1], query[0], marker="P", markersize=9, color="white",
                  markeredgecolor=BLACK)  # fmt: skip


def _circles(axis: Any, points: np.ndarray, largest: float) -> None:
    """Draw (y, x, weight) as circles; that of the largest weight has 260 square points."""
    y, x, weight = points.T
    axis.scatter(x - 0.5, y - 0.5, s=260 * np.maximum(weight, 0) / largest, color=ORANGE, alpha=0.7,
                 edgecolor=BLACK, linewidth=0.4)  # fmt: skip


def _name(query: Query) -> str:
    return f"token {query}" if isinstance(query, int) else f"pixel ({query[0]}, {query[1]})"

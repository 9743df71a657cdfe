"""Format of a family's weight table, read in both directions.

A table is a tuple of rows `(their name, our path, kind)`. Names hold placeholders: `{i}` stands for
a number, the same on both sides; a side may have `{2i}` or `{2i+1}` where one of the other's blocks
is two of its own, and theirs `{i+1}` where they count from 1 (`{i+1:02d}`: in two digits). A row is
a module ("linear": its weight and bias) or, with a kind of parameter, one array. A fourth entry is
a path of ours without which the row does not hold: it distinguishes mixers whose parts have equal
names.

A part that was never published has no row: another mixer's parts, a pooling of ours. Its leaves are
named by their own paths, with PyTorch's leaf and layout: `stage_0/block_1/mixer/dwconv/kernel` is
`stage_0.block_1.mixer.dwconv.weight`.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Row = tuple[str, str, str] | tuple[str, str, str, str]
Leaves = dict[tuple[str, ...], Any]
"""Flattened variables: ("params", "block_0", "norm1", "scale") → array or shape."""


class Transform(NamedTuple):
    """An invertible change of layout: `load(theirs, our shape) → ours`, `dump(ours) → theirs`."""

    load: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
    dump: Callable[[np.ndarray], np.ndarray]


def _same_size(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return array.reshape(shape)


AS_IS = Transform(_same_size, lambda p: p)
# Our kernels may split their output axis, [in, 3, heads, head_dim]; theirs is [out, in] with the
# same order inside.
LINEAR = Transform(lambda w, shape: w.T.reshape(shape), lambda p: p.reshape(p.shape[0], -1).T)
FLAT = Transform(_same_size, lambda p: p.reshape(-1))
CONV = Transform(  # of maps and of clips
    lambda w, _: w.transpose(*range(2, w.ndim), 1, 0),
    lambda p: p.transpose(p.ndim - 1, p.ndim - 2, *range(p.ndim - 2)),
)
CONV_1X1 = Transform(
    lambda w, shape: w[:, :, 0, 0].T.reshape(shape), lambda p: LINEAR.dump(p)[:, :, None, None]
)


FLAT_MAP = Transform(_same_size, lambda p: p.reshape(p.shape[0], -1))


def _same_shape(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if [n for n in array.shape if n > 1] != [n for n in shape if n > 1]:
        raise ValueError
    return array.reshape(shape)


# Flax's and TensorFlow's kernels have our order of axes, at most with axes of length 1 besides.
PLAIN = Transform(_same_shape, lambda p: p)
# From heads [heads, head_dim, out]; our kernel has flattened them.
FROM_HEADS = Transform(lambda w, _: w.reshape(-1, w.shape[-1]), lambda p: p)

# PyTorch's projections to q, k and v with the heads outermost, [heads · 3 · head_dim, in, 1, 1];
# ours are [in, 3, heads, head_dim]. Other mixers' of this name are as their own tables have them.
OF_EACH_HEAD = Transform(
    lambda w, shape: (
        w.reshape(shape[2], 3, shape[3], shape[0]).transpose(3, 1, 0, 2)
        if len(shape) == 4
        else CONV_1X1.load(w, shape)
    ),
    lambda p: (
        p.transpose(2, 1, 3, 0).reshape(-1, p.shape[0])[:, :, None, None]
        if p.ndim == 4
        else CONV_1X1.dump(p)
    ),
)
BIAS_OF_EACH_HEAD = Transform(
    lambda b, shape: (
        b.reshape(shape[1], 3, shape[2]).transpose(1, 0, 2)
        if len(shape) == 3
        else FLAT.load(b, shape)
    ),
    lambda p: p.transpose(1, 0, 2).reshape(-1) if p.ndim == 3 else FLAT.dump(p),
)
# Tables of relative positions [(2H-1)(2W-1), heads]; ours are [2H-1, 2W-1, heads].
ROWS = Transform(_same_size, lambda p: p.reshape(-1, p.shape[-1]))

# A linear layer of a flattened map, [out, in · h · w]; ours is [h, w, in, out].
OF_MAP = Transform(
    lambda w, shape: w.reshape(shape[3], shape[2], *shape[:2]).transpose(2, 3, 1, 0),
    lambda p: CONV.dump(p).reshape(p.shape[3], -1),
)

_AFFINE = {"weight": ("params", "scale", AS_IS), "bias": ("params", "bias", AS_IS)}
KINDS: dict[str, dict[str, tuple[str, str, Transform]]] = {
    "linear": {"weight": ("params", "kernel", LINEAR), "bias": ("params", "bias", FLAT)},
    "conv": {"weight": ("params", "kernel", CONV), "bias": ("params", "bias", FLAT)},
    "conv_1x1": {"weight": ("params", "kernel", CONV_1X1), "bias": ("params", "bias", FLAT)},
    "linear_of_map": {"weight": ("params", "kernel", OF_MAP), "bias": ("params", "bias", FLAT)},
    "norm": _AFFINE,
    "batch_norm": {
        **_AFFINE,
        "running_mean": ("batch_stats", "mean", AS_IS),
        "running_var": ("batch_stats", "var", AS_IS),
    },
    "heads_qkv": {
        "weight": ("params", "kernel", OF_EACH_HEAD),
        "bias": ("params", "bias", BIAS_OF_EACH_HEAD),
    },
    "param": {"": ("params", "", AS_IS)},
    "scalar": {"": ("params", "", FLAT)},
    "table": {"": ("params", "", ROWS)},
    "flat_map": {"": ("params", "", FLAT_MAP)},
    "flax": {"/kernel": ("params", "kernel", PLAIN), "/bias": ("params", "bias", PLAIN)},
    "flax_heads": {
        "/kernel": ("params", "kernel", FROM_HEADS),
        "/bias": ("params", "bias", PLAIN),
    },
    "flax_norm": {"/scale": ("params", "scale", PLAIN), "/bias": ("params", "bias", PLAIN)},
    "tf_norm": {"/gamma": ("params", "scale", PLAIN), "/beta": ("params", "bias", PLAIN)},
}
"""Kind → their leaf → (our collection, our leaf, transform)."""


_ANY_RANK = Transform(
    lambda w, shape: (CONV if len(shape) in (4, 5) else LINEAR).load(w, shape),
    lambda p: (CONV if p.ndim in (4, 5) else LINEAR).dump(p),
)
_OWN_LEAVES: dict[tuple[str, str], tuple[str, Transform]] = {
    ("params", "kernel"): ("weight", _ANY_RANK),
    ("params", "scale"): ("weight", AS_IS),
    ("params", "attention_biases"): ("attention_biases", FLAT_MAP),
    ("params", "bias"): ("bias", FLAT),
    ("batch_stats", "mean"): ("running_mean", AS_IS),
    ("batch_stats", "var"): ("running_var", AS_IS),
}
_PROJECTIONS = (*("qkv", "w_qkv", "q", "agent_q", "kv", "k", "v", "query", "key", "value", "attn"),)
"""Linear layers whose kernels may be split by heads, into as many axes as a convolution's."""


class Link(NamedTuple):
    """One of our leaves, with the key and transform of its source."""

    key: str
    transform: Transform


def link(rows: Sequence[Row], paths: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], Link]:
    """Find the key of theirs for each of our leaves: the first row that matches, or its own path.

    Args:
      paths: all leaves of a model; which rows hold may depend on what others there are.

    Raises:
      ValueError: two leaves have the same key: the table is ambiguous.
    """
    compiled = []
    present = {"/".join(path[1:n]) for path in paths for n in range(2, len(path) + 1)}
    for theirs, ours, kind, *when in rows:
        for their_leaf, (collection, our_leaf, transform) in KINDS[kind].items():
            pattern = re.compile("/".join(filter(None, (collection, _pattern(ours), our_leaf))))
            dot = "." if their_leaf and their_leaf[0] != "/" else ""
            compiled.append((pattern, f"{theirs}{dot}{their_leaf}", transform, when))
    links = {}
    for path in paths:
        for pattern, key, transform, when in compiled:
            if (match := pattern.fullmatch("/".join(path))) and (
                (numbers := _solve(match)) is not None
                and all(_fill(other, numbers) in present for other in when)
            ):
                links[path] = Link(_fill(key, numbers), transform)
                break
        else:
            links[path] = own(path)
    holders = {key: path for path, (key, _) in links.items()}
    for path, (key, _) in links.items():
        if holders[key] != path:
            both = " and ".join("/".join(p) for p in (path, holders[key]))
            raise ValueError(f"The weight table gives {both} the same name, {key!r}.")
    return links


def own(path: tuple[str, ...]) -> Link:
    """Build the link of a leaf without row, by its own path."""
    collection, *modules, leaf = path
    name, transform = _OWN_LEAVES.get((collection, leaf), (leaf, AS_IS))
    if leaf == "kernel" and modules[-1:] and modules[-1] in _PROJECTIONS:
        transform = LINEAR
    return Link(".".join((*modules, name)), transform)


_PLACEHOLDER = r"\{(\d*)([a-z])\+?(\d*)(?::(\w+))?\}"


def _fill(name: str, numbers: Mapping[str, int]) -> str:
    """Fill placeholders: `layers.{2i+1}` with i = 3 is `layers.7`."""
    return re.sub(_PLACEHOLDER, functools.partial(_number, numbers), name)


def _number(numbers: Mapping[str, int], match: re.Match[str]) -> str:
    factor, letter, offset, width = match.groups()
    return format(int(factor or 1) * numbers[letter] + int(offset or 0), width or "d")


def _pattern(path: str) -> str:
    """Convert `block_{2i+1}/norm` to a regular expression with a group `i_2_1` for 2 i + 1."""
    parts = re.split(r"(\{[^}]*\})", path)
    return "".join(re.sub(_PLACEHOLDER, _group, p) if p[:1] == "{" else re.escape(p) for p in parts)


def _group(match: re.Match[str]) -> str:
    factor, name, offset, _ = match.groups()
    return rf"(?P<{name}_{factor or 1}_{offset or 0}>\d+)"


def _solve(match: re.Match[str]) -> dict[str, int] | None:
    """Solve for the placeholders' values; None where no whole numbers fit."""
    numbers: dict[str, int] = {}
    for group, text in match.groupdict().items():
        name, factor, offset = group.split("_")
        value, rest = divmod(int(text) - int(offset), int(factor))
        if rest or value < 0 or numbers.setdefault(name, value) != value:
            return None
    return numbers


def load(
    rows: Sequence[Row],
    state_dict: Mapping[str, np.ndarray],
    shapes: Leaves,
    ignore: Sequence[str] = (),
) -> Leaves:
    """Convert their arrays to ours, float32 unless they are float64.

    Args:
      shapes: our leaves with anything that has `.shape`.
      ignore: regular expressions of keys that are not parameters (`num_batches_tracked`, index
        buffers …).

    Raises:
      ValueError: lists every missing, unused and misshapen key at once.
    """
    links, leaves, complaints = link(rows, list(shapes)), {}, []
    for path, (key, transform) in links.items():
        want = tuple(shapes[path].shape)
        if key not in state_dict:
            complaints.append(f"missing: {key} (for {'/'.join(path)}, {want})")
            continue
        array = np.asarray(state_dict[key])
        try:
            value = transform.load(array, want)
        except (ValueError, IndexError):
            value = None
        if value is None or value.shape != want:
            theirs = transform.dump(np.empty(want)).shape
            complaints.append(
                f"misshapen: {key} is {array.shape}, this model needs {theirs} (for "
                f"{'/'.join(path)})"
            )
            continue
        leaves[path] = value if value.dtype == np.float64 else value.astype(np.float32)
    used = {key for key, _ in links.values()}
    skip = re.compile("|".join((*ignore, r".*num_batches_tracked")))
    complaints += [
        f"unused: {k} {np.shape(v)}"
        for k, v in state_dict.items()
        if k not in used and not skip.fullmatch(k)
    ]
    if complaints:
        raise ValueError(
            f"These weights do not fit; {len(complaints)} keys differ:\n  "
            + "\n  ".join(complaints)
        )
    return leaves


def dump(rows: Sequence[Row], leaves: Leaves) -> dict[str, np.ndarray]:
    """Convert our arrays to theirs; the inverse of `load`."""
    links = link(rows, list(leaves))
    return {
        key: np.asarray(t.dump(np.asarray(leaves[path])), order="C")
        for path, (key, t) in links.items()
    }

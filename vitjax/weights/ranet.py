"""RANet: the authors' names."""

_BLOCK, _OURS = "scale_flows.{i}.{j}.", "block_{i}_{j}/"
_LAYER = (("conv_normal", "own"), ("conv_up", "lower"))
TABLE = (
    ("FirstLayer.layers.{i}.net.0", "stem_{i}/conv", "conv"),
    ("FirstLayer.layers.{i}.net.1", "stem_{i}/norm", "batch_norm"),
    *(
        row
        for theirs, ours in _LAYER
        for n, part in ((0, "reduce"), (3, "conv"))
        for row in (
            (f"{_BLOCK}layers.{{k}}.{theirs}.net.{n}", f"{_OURS}layer_{{k}}_{ours}/{part}/conv",
             "conv"),
            (f"{_BLOCK}layers.{{k}}.{theirs}.net.{n + 1}",
             f"{_OURS}layer_{{k}}_{ours}/{part}/norm", "batch_norm"),
        )
    ),
    *(
        row
        for theirs, ours in (("conv_last", "fuse"), ("trans", "transition"))
        for row in (
            (f"{_BLOCK}{theirs}.net.0", f"{_OURS}{ours}/conv", "conv"),
            (f"{_BLOCK}{theirs}.net.1", f"{_OURS}{ours}/norm", "batch_norm"),
        )
    ),
    ("classifier.{i}.m.{j}.net.0", "head_{i}/conv_{j}/conv", "conv"),
    ("classifier.{i}.m.{j}.net.1", "head_{i}/conv_{j}/norm", "batch_norm"),
    ("classifier.{i}.linear", "head_{i}/linear", "linear"),
)  # fmt: skip

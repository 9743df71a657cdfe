"""GhostNet: names of the authors' code, which are timm's too."""

_THEIRS, _OURS = "blocks.{i}.{j}.", "stage_{i}/block_{j}/"
_CONVOLUTIONS = (  # convolution and norm there, a module here
    ("ghost{k}.primary_conv.0", "ghost{k}.primary_conv.1", "ghost{k}/primary"),
    ("ghost{k}.cheap_operation.0", "ghost{k}.cheap_operation.1", "ghost{k}/cheap"),
    ("conv_dw", "bn_dw", "depthwise"),
    ("shortcut.0", "shortcut.1", "shortcut_depthwise"),
    ("shortcut.2", "shortcut.3", "shortcut_pointwise"),
)
TABLE = (
    ("conv_stem", "stem/conv", "conv"),
    ("bn1", "stem/norm", "batch_norm"),
    *(
        row
        for conv, norm, ours in _CONVOLUTIONS
        for row in (
            (_THEIRS + conv, f"{_OURS}{ours}/conv", "conv"),
            (_THEIRS + norm, f"{_OURS}{ours}/norm", "batch_norm"),
        )
    ),
    *(
        (f"{_THEIRS}se.conv_{name}", f"{_OURS}excite/{name}", "conv_1x1")
        for name in ("reduce", "expand")
    ),
    ("blocks.9.0.conv", "neck/conv", "conv"),
    ("blocks.9.0.bn1", "neck/norm", "batch_norm"),
    ("conv_head", "representation", "conv_1x1"),
    ("classifier", "head", "linear"),
)

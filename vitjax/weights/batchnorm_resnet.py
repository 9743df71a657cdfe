"""ResNet: torchvision's names, which timm and mmsegmentation use too."""

_BLOCK, _OURS = "layer{i+1}.{j}.", "stage_{i}/block_{j}/"
TABLE = (
    ("conv1", "stem/conv", "conv"),
    ("bn1", "stem/norm", "batch_norm"),
    (_BLOCK + "conv{k+1}", _OURS + "conv_{k}/conv", "conv"),
    (_BLOCK + "bn{k+1}", _OURS + "conv_{k}/norm", "batch_norm"),
    (_BLOCK + "downsample.0", _OURS + "shortcut/conv", "conv"),
    (_BLOCK + "downsample.1", _OURS + "shortcut/norm", "batch_norm"),
    ("fc", "head", "linear"),
)

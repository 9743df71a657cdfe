"""ConvNeXt: the authors' names; timm's and torchvision's are translated.

The MLPs are linear layers, as the authors and timm's sizes from tiny on have them; the 1×1
convolutions of timm's smaller sizes are read as well.
"""

from vitjax.weights.libraries import Names
from vitjax.weights.torchvision import CONVNEXT

_THEIRS, _OURS = "stages.{i}.{j}.", "stage_{i}/block_{j}/mixer/"
TABLE = (
    ("downsample_layers.0.0", "stem/conv", "conv"),
    ("downsample_layers.0.1", "stem/norm", "norm"),
    ("downsample_layers.{i}.0", "downsample_{i}/norm", "norm"),
    ("downsample_layers.{i}.1", "downsample_{i}/merge/conv", "conv"),
    (f"{_THEIRS}dwconv", f"{_OURS}conv", "conv"),
    (f"{_THEIRS}norm", f"{_OURS}norm", "norm"),
    *((f"{_THEIRS}pwconv{k}", f"{_OURS}mlp/fc{k}", "linear") for k in (1, 2)),
    (f"{_THEIRS}gamma", f"{_OURS}layer_scale", "param"),
    ("norm", "norm", "norm"),
    ("head", "head", "linear"),
)
TIMM = Names(
    "timm",
    r"^stem\.0\.",
    (
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
        (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
        (r"\.conv_dw\.", ".dwconv."),
        (r"\.mlp\.fc([12])\.", r".pwconv\1."),
        (r"^(head\.norm|norm_pre)\.", "norm."),
        (r"^head\.fc\.", "head."),
    ),
)
LIBRARIES = (TIMM, CONVNEXT)

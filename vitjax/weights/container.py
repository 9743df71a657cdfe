"""CONTAINER: names of the authors' code, whose linear layers are 1×1 convolutions."""

_THEIRS, _OURS = "blocks{i+1}.{j}.", "stage_{i}/block_{j}/"
TABLE = (
    ("patch_embed1.proj", "stem/conv", "conv"),
    ("patch_embed1.norm", "stem/norm", "norm"),
    ("patch_embed{i+1}.proj", "downsample_{i}/conv", "conv"),
    ("patch_embed{i+1}.norm", "downsample_{i}/norm", "norm"),
    (f"{_THEIRS}pos_embed", f"{_OURS}cpe", "conv"),
    *((f"{_THEIRS}norm{k}", f"{_OURS}norm{k}", "batch_norm") for k in (1, 2)),
    (f"{_THEIRS}sa_weight", f"{_OURS}mixer/gate", "scalar"),
    (f"{_THEIRS}conv", f"{_OURS}mixer/dwconv", "conv", f"{_OURS}mixer/gate"),
    (f"{_THEIRS}attn", f"{_OURS}mixer/dwconv", "conv"),
    (f"{_THEIRS}conv1", f"{_OURS}mixer/qkv", "conv_1x1", f"{_OURS}mixer/gate"),
    (f"{_THEIRS}conv1", f"{_OURS}mixer/v", "conv_1x1", f"{_OURS}mixer/dwconv"),
    (f"{_THEIRS}conv2", f"{_OURS}mixer/proj", "conv_1x1"),
    *((f"{_THEIRS}mlp.fc{k}", f"{_OURS}mlp/fc{k}", "conv_1x1") for k in (1, 2)),
    ("norm", "norm", "batch_norm"),
    ("head", "head", "linear"),
)

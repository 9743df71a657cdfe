"""BiFormer: names of the authors' checkpoints."""

STEM = (
    ("downsample_layers.0.0", "stem/conv_0/conv", "conv"),
    ("downsample_layers.0.1", "stem/conv_0/norm", "batch_norm"),
    ("downsample_layers.0.3", "stem/conv_1/conv", "conv"),
    ("downsample_layers.0.4", "stem/conv_1/norm", "batch_norm"),
    ("downsample_layers.{i}.0", "downsample_{i}/conv", "conv"),
    ("downsample_layers.{i}.1", "downsample_{i}/norm", "batch_norm"),
)
HEAD = (("norm", "norm", "batch_norm"), ("head", "head", "linear"))
TABLE = (
    *STEM,
    ("stages.{i}.{j}.pos_embed", "stage_{i}/block_{j}/cpe", "conv"),
    ("stages.{i}.{j}.norm1", "stage_{i}/block_{j}/norm1", "norm"),
    ("stages.{i}.{j}.attn.qkv.qkv", "stage_{i}/block_{j}/mixer/w_qkv", "linear"),
    ("stages.{i}.{j}.attn.router.emb", "stage_{i}/block_{j}/mixer/router/emb", "linear"),
    ("stages.{i}.{j}.attn.lepe", "stage_{i}/block_{j}/mixer/lepe", "conv"),
    ("stages.{i}.{j}.attn.wo", "stage_{i}/block_{j}/mixer/w_o", "linear"),
    ("stages.{i}.{j}.attn.qkv", "stage_{i}/block_{j}/mixer/qkv", "linear"),
    ("stages.{i}.{j}.attn.proj", "stage_{i}/block_{j}/mixer/proj", "linear"),
    ("stages.{i}.{j}.gamma1", "stage_{i}/block_{j}/layer_scale1", "param"),
    ("stages.{i}.{j}.norm2", "stage_{i}/block_{j}/norm2", "norm"),
    ("stages.{i}.{j}.mlp.0", "stage_{i}/block_{j}/mlp/fc1", "linear"),
    ("stages.{i}.{j}.mlp.1.dwconv", "stage_{i}/block_{j}/mlp/dwconv", "conv"),
    ("stages.{i}.{j}.mlp.3", "stage_{i}/block_{j}/mlp/fc2", "linear"),
    ("stages.{i}.{j}.gamma2", "stage_{i}/block_{j}/layer_scale2", "param"),
    *HEAD,
)

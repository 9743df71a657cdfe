"""Distilled DeiT: the authors' names, which are timm's too."""

from vitjax.weights import vit

TABLE = (
    ("dist_token", "reg_token", "param"),
    ("head_dist", "head_dist", "linear"),
    *(row for row in vit.TABLE if row[0] != "reg_token"),
)
adapt = vit.adapt
LIBRARIES = vit.LIBRARIES
published_size = vit.published_size

"""Menu of models (MODELS), and `create_model`, which builds one by name."""

import fnmatch
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vitjax.attention import MIXERS, VIDEO_MIXERS
from vitjax.layers.spec import CONTEXT, Spec, defaults, fields, spec
from vitjax.models import (
    batchnorm_resnet,
    biformer,
    bit,
    cait,
    coatnet,
    container,
    convnext,
    dat,
    debiformer,
    deformable_detr,
    deit,
    detr,
    dinov3,
    efficientformer,
    efficientnet,
    ghostnet,
    hybrid,
    mask_rcnn,
    mit,
    mlp_mixer,
    mobile_former,
    nat,
    nonlocal_resnet,
    poolformer,
    pvt,
    pvt_v2,
    ranet,
    refinenet,
    retinanet,
    segformer,
    semantic_fpn,
    setr,
    swin,
    swin3d,
    swinv2,
    uformer,
    upernet,
    vit,
    vivit,
    volo,
)
from vitjax.models.aliases import ALIASES, SAME_IN_TIMM
from vitjax.models.family import Family
from vitjax.models.preprocessing import NAMED, Preprocessing, by_name
from vitjax.models.protocols import Backbone, takes_clips
from vitjax.models.vit import ViT
from vitjax.names import parse_call, unknown

FAMILIES: tuple[Family, ...] = (
    vit.FAMILY,
    hybrid.FAMILY,
    batchnorm_resnet.FAMILY,
    nonlocal_resnet.FAMILY,
    bit.FAMILY,
    efficientnet.FAMILY,
    coatnet.FAMILY,
    deit.FAMILY,
    deit.FAMILY_III,
    dinov3.FAMILY,
    cait.FAMILY,
    swin.FAMILY,
    swinv2.FAMILY,
    pvt.FAMILY,
    pvt_v2.FAMILY,
    ranet.FAMILY,
    dat.FAMILY,
    dat.FAMILY_PP,
    nat.FAMILY,
    nat.FAMILY_DINAT,
    biformer.FAMILY,
    debiformer.FAMILY,
    volo.FAMILY,
    mlp_mixer.FAMILY,
    efficientformer.FAMILY,
    ghostnet.FAMILY,
    mobile_former.FAMILY,
    container.FAMILY,
    poolformer.FAMILY,
    convnext.FAMILY,
    mit.FAMILY,
    segformer.FAMILY,
    setr.FAMILY,
    refinenet.FAMILY,
    uformer.FAMILY,
    upernet.FAMILY,
    semantic_fpn.FAMILY,
    swin3d.FAMILY,
    vivit.FAMILY,
    retinanet.FAMILY,
    mask_rcnn.FAMILY,
    detr.FAMILY,
    deformable_detr.FAMILY,
)
"""All families; the menu, the tables of weights and docs/models.md come from them."""

MODELS: dict[str, Spec] = {name: s for family in FAMILIES for name, s in family.models.items()}
"""Name → factory with the variant's hyperparameters."""


def list_models(pattern: str = "*") -> list[str]:
    """List the names on the menu that match a shell pattern: `list_models("vit_*16")`."""
    return [name for name in MODELS if fnmatch.fnmatchcase(name, pattern)]


def create_model(name: str, num_classes: int | None = None, **overrides: Any) -> nn.Module:
    """Create a linen module by name: `create_model("vit_s16", num_classes=10, image_size=64)`.

    Args:
      name: one of `list_models()`, a ViT with any patch size, such as `vit_b20`, or another
        library's name of these models, such as "vit_base_patch16_384" or "google/bit-50"
        (`vitjax.models.aliases`).
      num_classes: 0 for a model without head; None for its default, that of ImageNet or of ADE20K.
      **overrides: hyperparameters of the model, by the names in its docstring.

    Raises:
      ValueError: the model or a hyperparameter is unknown (the nearest is named), a value does not
        fit, or no part of the model reads it, such as the window of another mixer.
    """
    entry = model_spec(name)
    options = fields(entry.factory)
    for key in overrides:
        if key not in options:
            raise ValueError(unknown(f"hyperparameter of {name!r}", key, options))
    if num_classes and "num_classes" not in options:
        raise ValueError(
            f"{name!r} has no classes; num_classes={num_classes} would change nothing."
        )
    if num_classes is not None and "num_classes" in options:
        entry = entry.replace(num_classes=num_classes)
    model = _build(entry.replace(**overrides))
    default = {**defaults(entry.factory), **dict(entry.kwargs)}
    for key, value in overrides.items():
        # Rates are a schedule over the blocks, which of a few blocks may be the same. Dense heads
        # take all that their functions do, and `backbone_spec` has checked the backbone's.
        dense = "backbone" in options
        if not dense and key not in {*CONTEXT, "drop_path_rate"} and value != default[key]:
            others = {k: v for k, v in overrides.items() if k != key}
            mixer = str(overrides.get("mixer", default.get("mixer")))
            _check_taken(name, key, value, mixer, model, entry.replace(**others))
    return model


def _check_taken(name: str, key: str, value: Any, mixer: str, model: Any, without: Spec) -> None:
    """Raise ValueError if the model is the same without this hyperparameter."""
    try:
        other: Any = _build(without)
    except ValueError:  # the others need this one
        return

    def effective(m: Any) -> Any:
        return m.effective() if hasattr(m, "effective") else m

    menu = VIDEO_MIXERS if takes_clips(model) else MIXERS
    takers = [mixer for mixer, entry in menu.items() if key in fields(entry.factory)]
    here = {part.partition("(")[0].strip() for part in re.split(r"[|;]", mixer)}
    # A window that is cut to a small map, say, is the same with another size.
    taken = here & set(takers) and f"{key}=" not in mixer
    if not taken and effective(model) == effective(other):
        raise ValueError(
            f"{key}={value!r} changes nothing in {name!r} with mixer={mixer!r}: none of its parts "
            f"takes {key}, or the mixer sets it already."
            + (f" Token mixers with one: {', '.join(takers)}." if takers else "")
            + " Leave it out, or choose a mixer that takes it."
        )


def _build(entry: Spec) -> Any:
    """Build a model of the menu; the name of a backbone is replaced by its spec."""
    options = {**defaults(entry.factory), **dict(entry.kwargs)}
    if "backbone" not in options:
        return entry.build()
    shared = {key: options[key] for key in BACKBONE_CONTEXT if key in options}
    return entry.build(backbone=backbone_spec(options["backbone"], **shared))


BACKBONE_CONTEXT = ("image_size", "remat", "scan", "dtype")
"""What a model with a backbone tells it, unless the backbone's text says otherwise."""


def backbone_spec(text: str, **context: Any) -> Spec:
    """Parse a backbone such as "swin_tiny(drop_path_rate=0.3)" to the spec of a headless model.

    The model has the options of a backbone of dense heads.

    Args:
      context: defaults of hyperparameters that the model has and the text does not set.

    Raises:
      ValueError: the text does not parse, the model or a hyperparameter is unknown, or the model
        returns no maps.
    """
    call = parse_call(text)
    if call is None:
        raise ValueError(
            f"Backbone {text!r} does not parse; write a name of the menu, or a name with literal "
            f"values: 'swin_tiny(drop_path_rate=0.3)'."
        )
    name, options = call
    if "num_classes" in options:
        raise ValueError(f"Backbone {text!r}: a backbone has no classes; leave num_classes out.")
    if not isinstance(create_model(name, 0, **options), Backbone):
        raise ValueError(f"Backbone {text!r}: {name} gives no maps; choose another model.")
    entry = model_spec(name).offer(num_classes=0)
    return entry.offer(dense=True, **context).replace(**options)


ImageSize = int | tuple[int, int]


def from_config(
    config: Mapping[str, Any], num_classes: int | None, image_size: ImageSize
) -> nn.Module:
    """Create the model of a run's config: `name`, `dtype`, and hyperparameters by their names."""
    name, options = model_arguments(config, image_size)
    return create_model(name, num_classes, **options)


def model_arguments(config: Mapping[str, Any], image_size: ImageSize) -> tuple[str, dict[str, Any]]:
    """Convert a run's config to the name and hyperparameters for `create_model`.

    Args:
      image_size: size of the run's images; the default of the model's `image_size`, the size of its
        tables.
    """
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    name, dtype = options.pop("name"), options.pop("dtype")
    if "image_size" in fields(model_spec(name).factory):
        options.setdefault("image_size", image_size)
    return name, {**options, "dtype": None if dtype == "float32" else jnp.dtype(dtype)}


def model_options(name: str) -> dict[str, Any]:
    """Return the hyperparameters that `create_model(name, …)` takes, with this model's values."""
    entry = model_spec(name)
    return {**defaults(entry.factory), **dict(entry.kwargs)}


def own_name(name: str) -> str:
    """Return vitjax's name of a model, which may be given by another library's name."""
    base = _without_tag(name)
    return ALIASES.get(base, (base if base in MODELS else name,))[0]


def _without_tag(name: str) -> str:
    """Remove the tag that distinguishes weights from timm's name of a model."""
    base = name.partition(".")[0]
    return base if base in ALIASES or base.startswith(SAME_IN_TIMM) else name


def preprocessing_of(
    name: str,
    layout: Mapping[str, Preprocessing] | None = None,
    image_size: int | None = None,
) -> Preprocessing:
    """Find the preprocessing of images for published weights of a model.

    Args:
      name: as in `create_model`; other libraries' names may distinguish weights, as in
        "vit_base_patch16_224.dino".
      layout: preprocessing of the layout of a file, by our names; it overrides the family's.
      image_size: size of the images if the preprocessing states none; None for that of the model.

    Raises:
      ValueError: the model is unknown.
    """
    size = model_options(name)["image_size"]
    ours = own_name(name)
    family = next((f for f in FAMILIES if ours in f.models), vit.FAMILY)
    found = name != ours and by_name(NAMED, name)
    found = found or by_name(layout or {}, ours) or by_name(family.preprocessing, ours)
    assert found, f"{ours} has no preprocessing"  # a test walks the menu
    size = size if isinstance(size, int) else size[0]
    return found.at(found.image_size or image_size or size)


def model_spec(name: str) -> Spec:
    """Find the spec of a model by its name on the menu or in another library.

    A ViT of any patch size, such as "vit_b20", has a spec too.
    """
    name = _without_tag(name)
    if name in MODELS:
        return MODELS[name]
    if alias := ALIASES.get(name):
        ours, options = alias
        return model_spec(ours).replace(**options)
    if match := re.fullmatch(r"vit_([a-zA-Z]+?)([1-9]\d?)(_reg4)?", name):
        size, patch, registers = match.groups()
        if size in vit.VARIANTS:
            extra = vit.REGISTERS if registers else {}
            return spec(ViT, patch_size=int(patch), **vit.VARIANTS[size], **extra)
    raise ValueError(unknown("model", name, (*MODELS, *ALIASES)))

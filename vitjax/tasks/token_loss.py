"""Loss of models with token logits: token labels and MixToken (Jiang et al., arXiv:2104.10858)."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from vitjax.models.protocols import GivesTokenLogits
from vitjax.task import Batch, Keys
from vitjax.tasks import mixing
from vitjax.tasks.class_weights import weigh
from vitjax.tasks.distillation import Distillation
from vitjax.tasks.mixing import Mixing
from vitjax.tasks.token_labels import TokenLabels, class_targets, token_label_loss, token_targets


class TokenBatch(NamedTuple):
    """Training batch of a model with token logits.

    Attributes:
      images: normalised, perhaps erased; not mixed.
      target: target of each image, smoothed.
      label_smoothing: smoothing of the targets.
      batch: `mask` and perhaps label maps.
    """

    images: Float[Array, "B H W c"]
    target: Float[Array, "B K"]
    label_smoothing: float
    batch: Batch


def token_loss(
    model: nn.Module,
    tokens: TokenLabels,
    class_weights: tuple[float, ...],
    mixed: Mixing,
    variables: Any,
    given: TokenBatch,
    keys: Keys,
) -> tuple[Float[Array, "B"], Float[Array, "B"], Any]:
    """Compute the loss of token labels and MixToken.

    The class token's cross-entropy plus `tokens.weight` times the mean of the tokens' (Jiang et
    al., arXiv:2104.10858, eq. 4). MixToken (eq. 6-8 there) exchanges a box of tokens with the
    partner's and gives the tokens' logits back; the class target becomes
    share · own + (1 - share) · partner's, with the share of the tokens outside of the box. With
    class weights a token counts by its own label, and the image by the class target.

    Returns:
      Loss per sample `[B]`, weight of each sample, and the variables other than the parameters.
    """
    apply = functools.partial(model.apply, method="token_logits")
    plain: Any = jax.eval_shape(apply, variables, given.images)
    grid = plain[1].shape[1:3]
    maps, dense = token_targets(
        given.batch, given.target, grid, given.label_smoothing, tokens.scores
    )
    target = class_targets(tokens.class_target, given.target, maps)
    inputs: tuple[Any, ...] = (given.images, True)
    if mixed.mixtoken:
        keep = mixing.kept_tokens(keys("mix"), mixed, grid, given.batch["mask"])
        share = keep.mean(axis=(1, 2))[:, None]
        target = share * target + (1 - share) * mixing.partner(target)
        inputs += (functools.partial(mixing.mix_token, keep),)
    state = [name for name in variables if name != "params"]
    (whole, logits), own = apply(
        variables, *inputs, rngs={"dropout": keys("dropout")}, mutable=state
    )
    target, count = weigh(target, class_weights, given.label_smoothing)
    dense, counts = weigh(dense, class_weights, given.label_smoothing)
    value = token_label_loss(whole, logits, target, dense, tokens.weight, (count, counts))
    return value, count, own


def check_tokens(
    model: nn.Module, loss: str, mixed: Mixing, distilled: Distillation | None
) -> None:
    """Check that token labels and MixToken fit the model and the other parts of the loss.

    Raises:
      ValueError: the model has no logits of tokens, or another part of the loss excludes them.
    """
    if not isinstance(model, GivesTokenLogits):
        raise ValueError(
            "Token labels and MixToken need a model with logits of its tokens, a VOLO; set "
            "token_labels.weight=0 and mixing.mixtoken=0."
        )
    others = {
        "mixup or cutmix": mixed.mixes,
        "a teacher": distilled,
        f"loss {loss!r}": loss != "softmax",
    }
    if wrong := [name for name, there in others.items() if there]:
        raise ValueError(
            f"Token labels and MixToken cannot be combined with {' and '.join(wrong)}: they have "
            f"their own mixing, softmax loss and labels."
        )

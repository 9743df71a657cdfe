"""Alternative fields for one setting: a field of the command line replaces the file's other one."""

import logging
import re
from collections.abc import Mapping
from typing import Any

log = logging.getLogger("vitjax")

_SPLIT = re.compile(r"(?<=[?&])split=([^&\s]*)&?")


class Said:
    """Config during its resolution, with the fields of the command line.

    Args:
      values: the config, with the command line's values.
      by_hand: fields of the command line.
      path: of the config's file, for messages.
      defaults: field → default.
    """

    def __init__(
        self,
        values: dict[str, Any],
        by_hand: Mapping[str, str],
        path: str,
        defaults: Mapping[str, Any],
    ):
        self._values, self.by_hand, self._path, self._defaults = values, by_hand, path, defaults

    def __getitem__(self, key: str) -> Any:
        """Return a field's value; its default, or None, if the config has no such field."""
        section, _, leaf = key.rpartition(".")
        found = self._values.get(section) if section else self._values
        return self._defaults.get(key) if found is None else found.get(leaf)

    def put(self, key: str, value: Any) -> None:
        section, _, leaf = key.rpartition(".")
        (self._values[section] if section else self._values)[leaf] = value

    def replace(self, key: str, by: str, value: Any = None) -> None:
        """Replace a field of the file, by its default if None, because of field `by`."""
        value = self._defaults.get(key) if value is None else value
        if key in self.by_hand or self[key] == value:
            return
        log.warning("%s sets %s=%s; --config.%s replaces it.", self._path, key, self[key], by)
        self.put(key, value)

    def remove(self, key: str, by: str) -> None:
        """Remove a hyperparameter of the file's model from the config."""
        section, _, leaf = key.rpartition(".")
        if key not in self.by_hand and leaf in self._values[section]:
            log.warning("%s sets %s=%s; --config.%s replaces it.", self._path, key, self[key], by)
            del self._values[section][leaf]


def settle(config: Said) -> None:
    """Remove values of the file that the command line sets through another field, and log this.

    Raises:
      ValueError: the command line itself sets one thing twice.
    """
    for part in (
        _length,
        _splits,
        _readers,
        _bad_images,
        _sizes,
        _first_weights,
        _frozen,
        _switches,
    ):
        part(config)


def _length(config: Said) -> None:
    for key, other in (("steps", "epochs"), ("epochs", "steps")):
        if key in config.by_hand and other not in config.by_hand:
            config.replace(other, key)


def _splits(config: Said) -> None:
    """Settle the split: a field, or the option `split=` of the data, which would override it."""
    for name in ("train", "test"):
        key, field = f"data.{name}", f"data.{name}_split"
        inside = _SPLIT.search(config[key])
        if inside and field in config.by_hand:
            if key not in config.by_hand:
                config.replace(key, field, without_split(config[key]))
            elif inside[1] != config[field]:
                raise ValueError(
                    f"--config.{key} has split={inside[1]}, and --config.{field} is "
                    f"{config[field]!r}; give one of them."
                )
        elif inside and key in config.by_hand:
            config.replace(field, key)
    # Without data of its own the test reads that of the training, whose option is not meant for it.
    inside = _SPLIT.findall(config["data.train"])
    if len(inside) == 1 and "data.test_split" in config.by_hand and not config["data.test"]:
        config.put("data.train", without_split(config["data.train"]))
        config.put("data.train_split", inside[0])


def without_split(uri: str) -> str:
    """Remove the option `split=` from a source's URI."""
    return re.sub(r"[?&](?=\s|$)", "", _SPLIT.sub("", uri))


def _bad_images(config: Said) -> None:
    """The number of images that may be skipped says nothing where one stops the run."""
    if "data.on_bad_image" in config.by_hand and config["data.on_bad_image"] == "fail":
        config.replace("data.max_bad_images", "data.on_bad_image")


def _readers(config: Said) -> None:
    threads, processes = "data.num_threads", "data.num_processes"
    if threads in config.by_hand and config[processes]:
        if processes in config.by_hand:
            raise ValueError(
                f"--config.{processes}={config[processes]} decodes in processes instead of "
                f"threads; leave --config.{threads} out, or set {processes} to 0."
            )
        config.replace(processes, threads)
    elif processes in config.by_hand and config[processes]:
        config.replace(threads, processes)


def _sizes(config: Said) -> None:
    """Settle the image size: a model's tables have that of the images unless it sets its own."""
    images, model = "data.image_size", "model.image_size"
    if images in config.by_hand:
        config.remove(model, images)
    elif model in config.by_hand and isinstance(config[model], type(config[images])):
        config.replace(images, model, config[model])


def _first_weights(config: Said) -> None:
    if "init" in config.by_hand and config["init"]:
        config.replace("loss.head_bias", "init")
    elif "loss.head_bias" in config.by_hand and config["loss.head_bias"]:
        config.replace("init", "loss.head_bias")
    if config["data.train"].startswith("pairs://") and "data.train" in config.by_hand:
        config.replace("restoration.degradation", "data.train")


def _frozen(config: Said) -> None:
    """Settle the frozen parameters: by name, or by a learning rate of 0."""
    freeze, rules = "optimizer.freeze", "optimizer.learning_rate_rules"
    still = any(not factor for _, factor in config[rules])
    if freeze in config.by_hand and still:
        config.replace(rules, freeze)
    elif rules in config.by_hand and still:
        config.replace(freeze, rules)


def _switches(config: Said) -> None:
    """Reset the fields that are read only by a feature that the command line turns off."""
    if "schedule.warmup_steps" in config.by_hand and not config["schedule.warmup_steps"]:
        for key in ("schedule.start_factor", "schedule.warmup_prefix"):
            config.replace(key, "schedule.warmup_steps")
    if "token_labels.weight" in config.by_hand and not config["token_labels.weight"]:
        for key in ("token_labels.maps", "token_labels.class_target"):
            config.replace(key, "token_labels.weight")

"""Configs: what is laid over what, and what is refused with which words."""

import json
import pathlib

import pytest

from vitjax.tasks import read_config
from vitjax.tasks.classification import ClassificationRun
from vitjax.train.config import ConfigError, check_batches, check_field, count_steps, read
from vitjax.train.defaults import RunConfig
from vitjax.training import load_config


def load(file: str, **overrides: str):
    return load_config(file, {k.replace("__", "."): v for k, v in overrides.items()})


def test_flags_go_over_the_file_and_the_file_over_the_defaults(file: str) -> None:
    c = load(f"{file}:digits", model__width="31", optimizer__b1="0.5", seed="3")
    assert (c.model["name"], c.model["width"], c.optimizer.b1, c.seed) == ("vit_s16", 31, 0.5, 3)
    assert (c.epochs, c.data.augment, c.schedule.name) == (2.0, "digits", "cosine")


def test_another_model_brings_its_own_hyperparameters(
    file: str, caplog: pytest.LogCaptureFixture
) -> None:
    c = load(file, model__name="swin_tiny", model__mixer="dbra", model__dtype="bfloat16")
    assert c.model == {"name": "swin_tiny", "dtype": "bfloat16", "mixer": "dbra"}
    assert "sets width for vit_s16; swin_tiny keeps its own values." in caplog.text


def test_another_optimizer_and_schedule_leave_out_what_they_do_not_read(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.py"
    path.write_text(
        "def get_config():\n"
        "    return dict(optimizer=dict(b1=0.5, b2=0.99, weight_decay=0.1),"
        " schedule=dict(end_factor=0.1, warmup_steps=3))\n"
    )
    c = load(str(path), optimizer__name="sgd", schedule__name="rsqrt")
    assert (c.optimizer.b1, c.optimizer.b2, c.optimizer.weight_decay) == (0.5, 0.999, 0.1)
    assert (c.schedule.end_factor, c.schedule.warmup_steps) == (0.0, 3)
    assert "sets b2 for adamw; sgd keeps its own values." in caplog.text
    assert "sets end_factor for cosine; rsqrt keeps its own values." in caplog.text
    assert load(str(path)).optimizer.b2 == 0.99
    assert load(str(path), optimizer__name="sgd", optimizer__b2="0.5").optimizer.b2 == 0.5


def test_values_take_the_type_of_their_field(file: str) -> None:
    c = load(
        file,
        schedule__learning_rate="1",
        data__train="10",
        model__scan="true",
        model__image_size="(32, 48)",
        optimizer__weight_decay_rules="[('.*', 1.0)]",
    )
    assert isinstance(c.schedule.learning_rate, float)
    assert c.data.train == "10"
    assert c.model["scan"] is True
    assert c.model["image_size"] == (32, 48)
    assert c.optimizer.weight_decay_rules == (((".*", 1.0)),)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "optimiser.b1",
            "0.5",
            "Unknown config field 'optimiser.b1' .* did you mean 'optimizer.b1'",
        ),
        ("optimizer.weight_dekay", "0.5", "did you mean 'optimizer.weight_decay'"),
        ("model.widht", "31", "did you mean 'model.width'"),
        (
            "seed",
            "often",
            "'seed' in the command line takes a whole number, such as 0; got 'often'",
        ),
        ("seed", "1.5", "takes a whole number"),
        ("seed", "True", "takes a whole number"),
        ("model.scan", "perhaps", "takes True or False"),
        ("optimizer.b1", "high", "takes a number"),
        ("optimizer.weight_decay_rules", "0.1", "takes a tuple"),
        ("optimizer.weight_decay_rules", "(('head',),)", r"rule \('head',\); a rule is a regular"),
        ("optimizer.learning_rate_rules", "(3,)", "rule 3; a rule is a regular expression of"),
        ("optimizer.learning_rate_rules", "(('*', 1.0),)", r"has '\*', which is no regular"),
        ("optimizer.freeze", "('(',)", r"has '\(', which is no regular expression"),
        ("optimizer.freeze", "(3,)", "has 3, which is no regular expression"),
        ("data.mean", "(0.5, 'x', 0.5)", "takes a tuple, such as"),
        ("data.std", "(0.5, 0, 0.5)", r"config.data.std=\(0.5, 0, 0.5\) must be above 0"),
        ("model.depth", "deep", "takes a whole number, such as 12"),
        ("model.name", "vit_s61x", "Unknown model 'vit_s61x'; did you mean 'vit_s16'"),
    ],
)
def test_a_wrong_field_or_type_is_refused(file: str, key: str, value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(file, {key: value})


def test_a_wrong_field_in_a_file_is_refused_with_the_files_name(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("def get_config():\n    return dict(optimizer=dict(clip=1.0))\n")
    with pytest.raises(
        ConfigError, match=r"'optimizer.clip' in .*bad.py; did you mean 'optimizer.clip_norm'"
    ):
        load(str(path))


def test_a_run_of_other_code_is_read(file: str) -> None:
    """JSON's lists are tuples again; newer fields have their defaults, and older ones are gone."""
    config = load(file, data__image_size="(4, 12)", loss__class_weights="{'a': 2, 'b': 1}")
    said = json.loads(json.dumps(config.to_dict()))
    assert read(ClassificationRun, said) == config and read_config(said) == config
    assert config.loss.class_weights == (("a", 2), ("b", 1))
    del said["data"]["sampling"], said["log"], said["loss"]["head_bias"]
    said["data"]["older"], said["older"] = 1, {"a": 1}
    assert read_config(said) == config
    assert read(RunConfig, said).data == config.data


def test_a_missing_file_names_the_nearest(file: str) -> None:
    with pytest.raises(ConfigError, match=r"No config file .*runn\.py.* The nearest is .*run\.py"):
        load(file.replace("run.py", "runn.py"))


def test_the_length_is_given_once(file: str) -> None:
    assert count_steps(load(file), 320) == 5
    assert count_steps(load(file, epochs="0", steps="7"), 320) == 7
    with pytest.raises(ConfigError, match="Give the length of the run once"):
        count_steps(load(file, steps="7", epochs="2"), 320)


def test_choices_and_batches_are_checked(file: str) -> None:
    with pytest.raises(ConfigError, match=r"config.loss.name='sofmax'; did you mean 'softmax'"):
        check_field("loss.name", "sofmax", ("softmax", "sigmoid"))
    check_batches(load(file, data__batch_size="24", optimizer__accumulate="3"), 8)
    with pytest.raises(
        ConfigError,
        match=r"data.batch_size=20 must be a multiple of 24 \(8 devices along data and fsdp × 3",
    ):
        check_batches(load(file, data__batch_size="20", optimizer__accumulate="3"), 8)


def test_the_command_line_says_the_length_its_own_way(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is said by hand replaces the other way of saying it, aloud."""
    for own, other, text in (("epochs", "steps", "7"), ("steps", "epochs", "2.5")):
        file = tmp_path / f"{own}.py"
        file.write_text(
            f"def get_config():\n    return dict({own}={9 if own == 'steps' else 3.5})\n"
        )
        config = load_config(str(file), {other: text})
        assert getattr(config, own) == 0 and getattr(config, other) == float(text)
        assert f"sets {own}=" in caplog.text and f"--config.{other} replaces it" in caplog.text
        caplog.clear()
        with pytest.raises(ConfigError, match="Give the length of the run once"):
            count_steps(load_config(str(file), {own: "4", other: text}), 10)

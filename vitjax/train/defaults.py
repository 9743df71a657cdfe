"""Fields of a run's config, with types and defaults. A task adds sections of its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vitjax.data.config import DataConfig
from vitjax.train.divergence import DivergenceConfig
from vitjax.train.optimizer import OptimizerConfig, ScheduleConfig
from vitjax.train.probes import ProbesConfig
from vitjax.train.sharding import MeshConfig


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """Section `log`: services that receive the metrics, see `vitjax.train.loggers`."""

    wandb: str = ""  # a project of Weights & Biases; empty: none
    mlflow: str = ""  # an experiment of MLflow


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Config of a run of any task; the subclass of a task adds its sections."""

    seed: int = 0
    epochs: float = 0.0  # length of the run, in passes over the training images …
    steps: int = 0  # … or in optimizer steps
    task: str = "classification"  # a name of vitjax.tasks.TASKS; its sections are fields too
    init: str = ""  # weights to begin with: a file, an Orbax folder, another run's, hf://owner/repo
    # A step of the run in `init`, from whose whole state this run goes on, with a schedule of its
    # own: a cooldown branch. 0: from the weights alone, at step 0.
    init_step: int = 0
    model: Mapping[str, Any] = dataclasses.field(  # any hyperparameter of the model besides
        default_factory=lambda: {"name": "vit_ti16", "dtype": "float32"}
    )
    data: DataConfig = DataConfig()
    # name → more data to measure on: --config.evals.v2='folder:///v2?split=test'
    evals: Mapping[str, str] = dataclasses.field(default_factory=dict)
    probes: ProbesConfig = ProbesConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    mesh: MeshConfig = MeshConfig()
    # (regex, words), before those that fit every model; train/partition.py
    sharding_rules: Sequence[Any] = ()
    log_every: int = 50  # steps
    log: LogConfig = LogConfig()
    eval_every: int = 1000  # steps; each evaluation also saves
    checkpoint_every: int = 1000  # steps
    keep: int = 3  # latest checkpoints; the best one is kept besides
    on_divergence: DivergenceConfig = DivergenceConfig()
    stall_seconds: float = 0.0  # without a step, after which the run ends itself; 0: never

    def to_dict(self) -> dict[str, Any]:
        """Convert to nested dicts, sorted by field name, as in `config.json`."""
        return _sorted(dataclasses.asdict(self))


def _sorted(tree: Any) -> Any:
    return {k: _sorted(tree[k]) for k in sorted(tree)} if isinstance(tree, dict) else tree


FREE = (
    *("log_every", "eval_every", "checkpoint_every", "keep"),
    *("data.num_threads", "data.num_processes", "log.wandb", "log.mlflow"),
    *("mesh.data", "mesh.fsdp", "mesh.tensor", "mesh.slices", "sharding_rules", "stall_seconds"),
)
"""Fields that may differ when a run is resumed: the parameters do not depend on them (on the mesh,
only in the order of sums)."""
CADENCE = ("eval_every", "checkpoint_every")
"""Of these, what a run that goes back to checkpoints does depend on."""


def free_fields(config: RunConfig) -> set[str]:
    """Return the fields on which the parameters of a run do not depend."""
    rollback = config.on_divergence.action == "rollback"
    return set(FREE) - set(CADENCE if rollback else ())

"""TRL's GRPO and RLOO, with scores of completions that do not end, and exact resume."""

from dataclasses import dataclass

from trl import GRPOConfig as _TrlGRPOConfig
from trl import GRPOTrainer as _TrlGRPOTrainer
from trl import RLOOConfig as _TrlRLOOConfig
from trl import RLOOTrainer as _TrlRLOOTrainer

from tulu_recipes.trainers.online import OnlineConfig, OnlineTrainer


@dataclass
class GRPOConfig(OnlineConfig, _TrlGRPOConfig):  # trl is untyped
    """TRL's GRPOConfig and the keys of `OnlineConfig`."""


class GRPOTrainer(OnlineTrainer, _TrlGRPOTrainer):  # trl is untyped
    """TRL's GRPOTrainer, as it is beside what `OnlineTrainer` adds."""

    args: GRPOConfig


@dataclass
class RLOOConfig(OnlineConfig, _TrlRLOOConfig):  # trl is untyped
    """TRL's RLOOConfig and the keys of `OnlineConfig`."""


class RLOOTrainer(OnlineTrainer, _TrlRLOOTrainer):  # trl is untyped
    """TRL's RLOOTrainer, as it is beside what `OnlineTrainer` adds."""

    args: RLOOConfig

"""TRL's GRPO and RLOO, with scores of completions that do not end, and exact resume."""

from dataclasses import dataclass, field

from trl import GRPOConfig as _TrlGRPOConfig
from trl import GRPOTrainer as _TrlGRPOTrainer
from trl import RLOOConfig as _TrlRLOOConfig
from trl import RLOOTrainer as _TrlRLOOTrainer

from tulu_recipes.trainers.online import OnlineTrainer

_NON_STOP = "Replaces the score of a completion without EOS."


@dataclass
class GRPOConfig(_TrlGRPOConfig):  # trl is untyped
    """TRL's GRPOConfig and `non_stop_reward` (Tülu 3.1: 0)."""

    non_stop_reward: float | None = field(default=None, metadata={"help": _NON_STOP})


class GRPOTrainer(OnlineTrainer, _TrlGRPOTrainer):  # trl is untyped
    """TRL's GRPOTrainer, as it is beside what `OnlineTrainer` adds."""

    args: GRPOConfig


@dataclass
class RLOOConfig(_TrlRLOOConfig):  # trl is untyped
    """TRL's RLOOConfig and `non_stop_reward`."""

    non_stop_reward: float | None = field(default=None, metadata={"help": _NON_STOP})


class RLOOTrainer(OnlineTrainer, _TrlRLOOTrainer):  # trl is untyped
    """TRL's RLOOTrainer, as it is beside what `OnlineTrainer` adds."""

    args: RLOOConfig

"""The recipe keys that are ours, per stage. What TRL has a key for keeps TRL's name and is not here.

A few are TRL's own names where TRL's field could not be used as it is: `pad_token` adds the token to the vocabulary,
`loss_type` of DPO may be one word, and TRL's DPO has no `eos_token`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from tulu_recipes.config.keys import FRACTION, POSITIVE, Key, Limits, alarm_keys, our_key
from tulu_recipes.config.online_keys import ONLINE

LOSS_REDUCTIONS = ("sum", "token_mean", "sequence_mean", "microbatch_mean")
MASKINGS = ("last_turn", "all_assistant_turns")
# TRL's DPOTrainer has all but the last, which is its CPOTrainer's
DPO_LOSSES = (
    "sigmoid_norm",
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "simpo",
)

_COMMON = (
    our_key(
        "chat_template",
        "null str",
        None,
        "How turns become text: tulu, a .jinja file, or a folder or Hub id of a tokenizer; null: the model's own.",
        "model",
    ),
    our_key(
        "pad_token",
        "null str",
        None,
        "Padding token, added to the vocabulary where absent; never the EOS token.",
        "model",
    ),
    our_key(
        "model_builder",
        "null str",
        None,
        "module:function that builds the folder model_name_or_path when it does not exist.",
        "model",
    ),
    our_key("dataset_mix", "null str", None, "Path of a mix YAML; instead of dataset_name.", "data"),
    our_key("dataset_revision", "null str", None, "Branch, tag or commit of dataset_name on the Hub.", "data"),
    our_key(
        "eval_dataset_name",
        "null str",
        None,
        "Hub id or local path of evaluation rows; null: dataset_name. Split: dataset_test_split, where it is given.",
        "data",
        changes_weights=False,
    ),
    our_key(
        "global_batch_size",
        "null int",
        None,
        "Sequences (pairs; in rlvr completions) per optimizer step; per-device size and accumulation are solved.",
        "batch and loss",
        limits=POSITIVE,
    ),
    our_key(
        "allow",
        "list",
        [],
        "Slugs of problems to go on in spite of, e.g. [bf16-weights].",
        "consent and limits",
        changes_weights=False,
    ),
    our_key(
        "max_broken_fraction",
        "float",
        0.001,
        "Stop when more of the rows cannot be read as a conversation.",
        "consent and limits",
        limits=FRACTION,
        changes_weights=False,
    ),
    our_key(
        "max_duplicate_fraction",
        "float",
        1.0,
        "Stop when more of the rows are exact copies of another.",
        "consent and limits",
        limits=FRACTION,
        changes_weights=False,
    ),
)

# Of stages that learn from answers in the rows
_ANSWERS = (
    our_key(
        "max_cut_answer_fraction",
        "float",
        0.05,
        "Stop when more of the rows lose a part of an answer to max_length.",
        "consent and limits",
        limits=FRACTION,
        changes_weights=False,
    ),
    our_key(
        "max_unsupervised_fraction",
        "float",
        0.01,
        "Stop when more of the rows have no supervised token.",
        "consent and limits",
        limits=FRACTION,
        changes_weights=False,
    ),
)

_SAMPLES = (
    our_key(
        "sample_rows",
        "int",
        0,
        "Evaluation rows answered before and after training, for the report.",
        "samples",
        limits=Limits(0),
        changes_weights=False,
    ),
    our_key(
        "sample_max_new_tokens",
        "int",
        64,
        "Longest sampled answer, in tokens.",
        "samples",
        limits=POSITIVE,
        changes_weights=False,
    ),
)


def _over_length(default: str, *choices: str) -> Key:
    help_text = "What happens to rows longer than max_length."
    return our_key("over_length", "str", default, help_text, "data", choices=choices)


_SFT = (
    _over_length("truncate", "truncate", "drop", "stop"),
    our_key(
        "loss_reduction",
        "str",
        "token_mean",
        "How token losses become one number.",
        "batch and loss",
        choices=LOSS_REDUCTIONS,
    ),
)

_IDENTICAL = our_key(
    "max_identical_fraction",
    "float",
    0.01,
    "Stop when in more of the pairs chosen and rejected are the same, as rows or after cutting.",
    "consent and limits",
    limits=FRACTION,
    changes_weights=False,
)

_REWARD = (
    _over_length("drop", "drop", "truncate", "stop", "as_released"),
    _IDENTICAL,
    our_key("margin_column", "null str", None, "Column with a number that the chosen score must lead by.", "data"),
)

_EOS_TOKEN = our_key("eos_token", "null str", None, "Token of the vocabulary that ends an assistant turn.", "model")

_DPO = (
    _over_length("truncate", "truncate", "drop", "stop"),
    _IDENTICAL,
    our_key(
        "max_early_divergence_fraction",
        "float",
        0.01,
        "Stop when more of the pairs part before their last turn, where masking compares last turns alone.",
        "consent and limits",
        limits=FRACTION,
        changes_weights=False,
    ),
    _EOS_TOKEN,
    our_key(
        "loss_type",
        "str list",
        "sigmoid",
        "Loss of a pair, or a list to add up; sigmoid_norm is Tülu's, simpo stands alone. " + ", ".join(DPO_LOSSES),
        "preference loss",
        choices=DPO_LOSSES,
    ),
    our_key(
        "loss_weights",
        "null list",
        None,
        "Weight of each loss in loss_type; null: 1 each.",
        "preference loss",
        item="float",
    ),
    our_key(
        "beta",
        "float",
        0.1,
        "Strength of the pull towards the reference model; Tülu 5 with sigmoid_norm.",
        "preference loss",
        limits=Limits(0, open_low=True),
    ),
    our_key(
        "simpo_gamma",
        "float",
        0.5,
        "SimPO's margin, as TRL counts it: the paper's γ, of which TRL divides β out again.",
        "preference loss",
        limits=Limits(0),
    ),
    our_key(
        "masking",
        "str",
        "last_turn",
        "Which turns are compared: the last answers, or every assistant turn as in the released Tülu 3 code.",
        "preference loss",
        choices=MASKINGS,
    ),
    our_key(
        "mask_termination_tokens",
        "bool",
        False,
        "Leave the EOS of each compared turn out of the loss, as Llama 3.1 does.",
        "preference loss",
    ),
    our_key(
        "concatenated_forward",
        "bool",
        True,
        "Chosen and rejected in one forward pass; false: in two, which pads less and takes longer.",
        "preference loss",
        changes_weights=False,
    ),
    our_key(
        "ref_log_probs_cache",
        "null str",
        None,
        "Folder of the log-probs that precompute_ref_log_probs keeps; null: ref_log_probs in output_dir.",
        "reference model",
        changes_weights=False,
    ),
    *alarm_keys("chosen answers collapse, or accuracy stays at chance"),
    our_key(
        "alarm_chosen_drop",
        "float",
        1.0,
        "Nats per token that chosen answers may lose against the reference before the alarm.",
        "alarms",
        limits=Limits(0, open_low=True),
        changes_weights=False,
    ),
    our_key(
        "alarm_accuracy",
        "float",
        0.55,
        "Share of pairs ranked rightly, below which accuracy counts as chance.",
        "alarms",
        limits=FRACTION,
        changes_weights=False,
    ),
)

OUR_KEYS: Mapping[str, tuple[Key, ...]] = MappingProxyType(
    {
        "sft": (*_COMMON, *_ANSWERS, *_SFT, *_SAMPLES),
        "reward": (*_COMMON, *_ANSWERS, *_REWARD),
        "dpo": (*_COMMON, *_ANSWERS, *_DPO, *_SAMPLES),
        "rlvr": (*_COMMON, _EOS_TOKEN, *ONLINE, *_SAMPLES),
    }
)

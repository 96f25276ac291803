"""Stand-ins of the preference sets: Tülu 3's parts and mixtures, and one UltraFeedback-like set that no mix names."""

import pyarrow as pa

from tests.standins.table import MESSAGES, Row, Standin, Table, chat, one_split, schema
from tests.standins.text import Text

STRING, FLOAT = pa.string(), pa.float64()
PAIR = {"prompt": STRING, "chosen": MESSAGES, "rejected": MESSAGES}
RATED = {"chosen_rating": FLOAT, "rejected_rating": FLOAT, "chosen_model": STRING, "rejected_model": STRING}
MIXTURE_SOURCES = ("tulu-3-sft-reused-off-policy-8b", "tulu-3-sft-reused-if", "tulu-3-wildchat-reused-on-policy-8b")


def pair(text: Text, number: int) -> Row:
    """Answers are whole conversations; `prompt` is the last user turn."""
    chosen = chat(text, number)
    rejected = [*chosen[:-1], {"content": text.paragraph(1), "role": "assistant"}]
    return {"prompt": chosen[-2]["content"], "chosen": chosen, "rejected": rejected}


def mixture_row(text: Text, number: int) -> Row:
    return {"id": text.hex(), **pair(text, number), "source": MIXTURE_SOURCES[number % 3]}


def rated_row(text: Text, number: int) -> Row:
    ratings = {"chosen_rating": 4.75, "rejected_rating": 1.5 + number % 3}
    models = {"chosen_model": "qwen2_5_72b_instruct", "rejected_model": "yi_6b_chat"}
    return {**pair(text, number), **ratings, **models, "source": MIXTURE_SOURCES[number % 3], "id": text.hex()}


def persona_row(text: Text, number: int) -> Row:
    row = {"id": text.hex(), **pair(text, 0), "constraints": ["length constraints:number of words"]}
    return {**row, "chosen_model": "gpt-4o-2024-08-06", "rejected_model": "gpt-4o-2024-08-06"}


def ultrafeedback_row(text: Text, number: int) -> Row:
    row = pair(text, 0)
    return {**row, "prompt_id": text.hex(64), "messages": row["chosen"], "score_chosen": 8.5, "score_rejected": 4.0}


RATED_LAYOUT = schema(**PAIR, **RATED, source=STRING, id=STRING)
MIXTURE_LAYOUT = schema(id=STRING, **PAIR, source=STRING)
PERSONA_LAYOUT = schema(id=STRING, **PAIR, constraints=pa.list_(STRING), chosen_model=STRING, rejected_model=STRING)
ULTRAFEEDBACK_LAYOUT = schema(
    prompt=STRING, prompt_id=STRING, chosen=MESSAGES, rejected=MESSAGES, messages=MESSAGES,
    score_chosen=FLOAT, score_rejected=FLOAT,
)  # fmt: skip
PARTS = [
    "tulu-3-sft-reused-off-policy",
    "tulu-3-wildchat-unused",
    *(
        f"{part}-on-policy-{size}"
        for size in ("8b", "70b")
        for part in (
            "tulu-3-sft-reused", "tulu-3-IF-augmented", "tulu-3-wildchat-if", "tulu-3-wildchat-reused",
            "tulu-3-ultrafeedback-cleaned",
        )
    ),
]  # fmt: skip

PREFERENCE = {
    **{
        f"allenai/{part}": Standin(one_split(RATED_LAYOUT, rated_row), assumed="columns: those of the 405B mixture")
        for part in PARTS
    },
    "allenai/tulu-3-pref-personas-instruction-following": Standin(
        one_split(PERSONA_LAYOUT, persona_row), assumed="columns beside prompt, constraints, chosen and rejected"
    ),
    "allenai/llama-3.1-tulu-3-8b-preference-mixture": Standin(one_split(MIXTURE_LAYOUT, mixture_row)),
    "allenai/llama-3.1-tulu-3-70b-preference-mixture": Standin(one_split(MIXTURE_LAYOUT, mixture_row)),
    "allenai/llama-3.1-tulu-3-405b-preference-mixture": Standin(one_split(RATED_LAYOUT, rated_row)),
    "HuggingFaceH4/ultrafeedback_binarized": Standin(
        {("default", "train_prefs"): Table(ULTRAFEEDBACK_LAYOUT, ultrafeedback_row)}, "mit"
    ),
}

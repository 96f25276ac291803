"""Stand-ins of the SFT sources: the published mixture, its parts, and the upstream sets."""

import json

import pyarrow as pa

from tests.standins.table import MESSAGES, Row, Standin, Table, chat, one_split, schema
from tests.standins.text import Text

STRING, INT, BOOL = pa.string(), pa.int64(), pa.bool_()

# The 19 `source` values of the published mixture.
SOURCE_LABELS = (
    "ai2-adapt-dev/tulu_hard_coded_repeated_10",
    "ai2-adapt-dev/oasst1_converted",
    "ai2-adapt-dev/no_robots_converted",
    "ai2-adapt-dev/tulu_v3.9_wildchat_100k",
    "ai2-adapt-dev/flan_v2_converted",
    "ai2-adapt-dev/tulu_v3.9_sciriff_10k",
    "ai2-adapt-dev/tulu_v3.9_table_gpt_5k",
    "ai2-adapt-dev/personahub_math_v5_regen_149960",
    "allenai/tulu-3-sft-personas-math-grade",
    "ai2-adapt-dev/tulu_v3.9_personahub_math_interm_algebra_20k",
    "ai2-adapt-dev/tulu_v3.9_open_math_2_gsm8k_50k",
    "ai2-adapt-dev/numinamath_tir_math_decontaminated",
    "ai2-adapt-dev/personahub_code_v2_34999",
    "ai2-adapt-dev/evol_codealpaca_heval_decontaminated",
    "ai2-adapt-dev/coconot_converted",
    "ai2-adapt-dev/tulu_v3.9_wildjailbreak_decontaminated_50k",
    "ai2-adapt-dev/tulu_v3.9_synthetic_finalresp_wildguardmixtrain_decontaminated_50k",
    "ai2-adapt-dev/tulu_v3.9_aya_100k",
    "ai2-adapt-dev/personahub_ifdata_manual_seed_v3_29980",
)
TURN = [
    ("content", STRING), ("country", STRING), ("hashed_ip", STRING),
    ("header", pa.struct([("accept-language", STRING), ("user-agent", STRING)])),
    ("language", STRING), ("redacted", BOOL), ("role", STRING), ("state", STRING),
    ("timestamp", pa.timestamp("us", tz="UTC")), ("toxic", BOOL), ("turn_identifier", INT),
]  # fmt: skip
WILDCHAT = schema(
    conversation_hash=STRING,
    model=STRING,
    timestamp=pa.timestamp("us", tz="UTC"),
    conversation=pa.list_(pa.struct(TURN)),
    turn=INT,
    language=STRING,
    openai_moderation=pa.list_(
        pa.struct([("flagged", BOOL), ("category_scores", pa.struct([("hate", pa.float64())]))])
    ),
    detoxify_moderation=pa.list_(pa.struct([("toxicity", pa.float32())])),
    toxic=BOOL,
    redacted=BOOL,
    state=STRING,
    country=STRING,
    hashed_ip=STRING,
    header=pa.struct([("accept-language", STRING), ("user-agent", STRING)]),
)
GPT_4 = ("gpt-4-0314", "gpt-4-1106-preview", "gpt-4-0125-preview")


def mixture_row(text: Text, number: int) -> Row:
    source = SOURCE_LABELS[number % len(SOURCE_LABELS)]
    return {"id": f"{source.split('/')[1]}_{number}", "messages": chat(text, number), "source": source}


def converted_row(text: Text, number: int) -> Row:
    return {"id": text.hex(), "messages": chat(text, number)}


def persona_row(text: Text, number: int) -> Row:
    question = text.question()
    messages = [{"content": question, "role": "user"}, {"content": text.paragraph(), "role": "assistant"}]
    return {"id": f"persona_{text.hex(8)}", "prompt": question, "messages": messages}


def persona_if_row(text: Text, number: int) -> Row:
    return {**persona_row(text, number), "constraints": ["length constraints:number of words", "keywords:frequency"]}


def flan_row(text: Text, number: int) -> Row:
    return {"dataset": "flan_v2", **converted_row(text, number)}


def no_robots_row(text: Text, number: int) -> Row:
    messages = chat(text, number)
    prompt = next(turn["content"] for turn in messages if turn["role"] == "user")
    return {"prompt": prompt, "prompt_id": text.hex(64), "messages": messages, "category": "Generation"}


def numina_row(text: Text, number: int) -> Row:
    problem, solution = f"{text.question()} Give a number.", f"{text.paragraph()} The answer is {text.number()}."
    messages = [{"content": problem, "role": "user"}, {"content": solution, "role": "assistant"}]
    return {"problem": problem, "solution": solution, "messages": messages}


def evol_row(text: Text, number: int) -> Row:
    question = f"Write a function for this: {text.sentence()}"
    return {
        "id": str(number),
        "messages": [{"content": question, "role": "user"}, {"content": text.code(), "role": "assistant"}],
    }


def wildchat_row(text: Text, number: int) -> Row:
    header = {"accept-language": "en", "user-agent": "browser"}
    row: Row = {"conversation_hash": text.hex(32), "model": ("gpt-3.5-turbo-0613", *GPT_4)[number % 4], "turn": 1}
    row |= {"timestamp": 1_700_000_000_000_000 + number, "language": "English", "state": None, "country": None}
    turns = []
    for position, turn in enumerate(chat(text, number % 2)):
        extra: Row = {"country": None, "hashed_ip": text.hex(), "header": header if position % 2 == 0 else None}
        extra |= {"language": "English", "redacted": False, "state": None, "toxic": False, "turn_identifier": position}
        turns.append({**turn, **extra, "timestamp": row["timestamp"]})
    row |= {"conversation": turns, "toxic": False, "redacted": False, "hashed_ip": text.hex(), "header": header}
    row["openai_moderation"] = [{"flagged": False, "category_scores": {"hate": 0.01}} for _ in turns]
    row["detoxify_moderation"] = [{"toxicity": 0.01} for _ in turns]
    return row


def aya_row(text: Text, number: int) -> Row:
    language, code = (("English", "eng"), ("Turkish", "tur"), ("Yoruba", "yor"))[number % 3]
    row = {"inputs": text.question(), "targets": text.paragraph(), "language": language, "language_code": code}
    return {**row, "annotation_type": "original-annotations", "user_id": text.hex(64)}


def sciriff_row(text: Text, number: int) -> Row:
    dataset = "science.qasa_abstractive_qa" if number % 2 else "tulu_v2_sft_mixture"
    return {"dataset": dataset, **converted_row(text, number)}


def table_gpt_row(text: Text, number: int) -> Row:
    prompt = f"# Task\n{text.sentence()}\n|a|b|\n|{text.number()}|{text.number()}|"
    completion = json.dumps({"answer": text.clause()})
    messages = [{"content": prompt, "role": "user"}, {"content": completion, "role": "assistant"}]
    row = {"task": "ColumnTypeAnnotation", "dataset": "made-up", "prompt": prompt, "completion": completion}
    return {**row, "messages": messages, "metadata": json.dumps({"number": number})}


def open_math_row(text: Text, number: int) -> Row:
    answer = text.number()
    source = ("gsm8k", "augmented_gsm8k", "math", "augmented_math")[number % 4]
    row = {"problem": text.question(), "generated_solution": f"{text.paragraph()} It is \\boxed{{{answer}}}."}
    return {**row, "expected_answer": str(answer), "problem_source": source}


def coconot_row(text: Text, number: int) -> Row:
    row = {"id": text.hex(8), "category": "Incomplete requests", "subcategory": "underspecified"}
    return {**row, "prompt": text.question(), "response": text.paragraph()}


PERSONA = schema(id=STRING, prompt=STRING, messages=MESSAGES)
CONVERTED = schema(id=STRING, messages=MESSAGES)
NO_ROBOTS = schema(prompt=STRING, prompt_id=STRING, messages=MESSAGES, category=STRING)
OPEN_MATH = schema(problem=STRING, generated_solution=STRING, expected_answer=STRING, problem_source=STRING)
COCONOT = schema(id=STRING, category=STRING, subcategory=STRING, prompt=STRING, response=STRING)
TABLE_GPT = schema(task=STRING, dataset=STRING, prompt=STRING, completion=STRING, messages=MESSAGES, metadata=STRING)
AYA = schema(
    inputs=STRING, targets=STRING, language=STRING, language_code=STRING, annotation_type=STRING, user_id=STRING
)
SCIRIFF = schema(dataset=STRING, id=STRING, messages=MESSAGES)

SFT = {
    "allenai/tulu-3-sft-mixture": Standin(
        one_split(schema(id=STRING, messages=MESSAGES, source=STRING), mixture_row, share=4)
    ),
    "allenai/tulu-3-hard-coded": Standin(
        one_split(CONVERTED, converted_row, exactly=24), "cc-by-4.0", assumed="columns"
    ),
    "HuggingFaceH4/no_robots": Standin(
        {
            ("default", "train"): Table(NO_ROBOTS, no_robots_row),
            ("default", "test"): Table(NO_ROBOTS, no_robots_row, 0.2),
        },
        "cc-by-nc-4.0",
    ),
    "ai2-adapt-dev/flan_v2_converted": Standin(one_split(SCIRIFF, flan_row), "unknown", assumed="columns"),
    "allenai/tulu-3-sft-personas-math": Standin(one_split(PERSONA, persona_row)),
    "allenai/tulu-3-sft-personas-math-grade": Standin(one_split(PERSONA, persona_row)),
    "allenai/tulu-3-personas-algebra": Standin(one_split(PERSONA, persona_row)),
    "allenai/tulu-3-sft-personas-code": Standin(one_split(PERSONA, persona_row)),
    "allenai/tulu-3-sft-personas-instruction-following": Standin(
        one_split(PERSONA.append(pa.field("constraints", pa.list_(STRING))), persona_if_row)
    ),
    "allenai/numinamath_tir_math_decontaminated": Standin(
        one_split(schema(problem=STRING, solution=STRING, messages=MESSAGES), numina_row),
        "apache-2.0",
        assumed="columns",
    ),
    "allenai/evol_codealpaca_heval_decontaminated": Standin(
        one_split(CONVERTED, evol_row), "apache-2.0", assumed="columns"
    ),
    "allenai/WildChat-1M": Standin(one_split(WILDCHAT, wildchat_row, share=2)),
    "allenai/SciRIFF-train-mix": Standin(one_split(SCIRIFF, sciriff_row, share=2), assumed="values of dataset"),
    "LipengCS/Table-GPT": Standin(
        {("All", "train"): Table(TABLE_GPT, table_gpt_row), ("All", "test"): Table(TABLE_GPT, table_gpt_row, 0.2)},
        "mit",
        assumed="columns beside prompt and completion",
    ),
    "nvidia/OpenMathInstruct-2": Standin(
        {
            ("default", "train"): Table(OPEN_MATH, open_math_row, 2),
            ("default", "train_1M"): Table(OPEN_MATH, open_math_row),
        },
        "cc-by-4.0",
        assumed="licence",
    ),
    "allenai/coconot": Standin(
        {("original", "train"): Table(COCONOT, coconot_row), ("original", "test"): Table(COCONOT, coconot_row, 0.2)}
    ),
    "CohereForAI/aya_dataset": Standin(
        {("default", "train"): Table(AYA, aya_row), ("default", "test"): Table(AYA, aya_row, 0.2)}, "apache-2.0"
    ),
}

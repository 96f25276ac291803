"""SFT, DPO and RLVR in the demo: shares counted by hand, and a model that answers for itself."""

import json
from pathlib import Path

from tests.tiny import save_base
from tulu_recipes.demo import verified

# verifier, ground truth, what SFT, DPO and RLVR said
ANSWERS = [
    ("gsm8k", "5", "4", "4!", "5!"),
    ("gsm8k", "12", "12", " 12! ", "12!"),
    ("gsm8k", "7", "7", "9!", "8!"),
    ("string_match", "c a t", "c a", "c a t t!", "C a t!"),
]


def test_shares_are_those_counted_by_hand_and_prompts_that_were_mended_are_shown() -> None:
    samples = [
        {"prompt": f"question {number}", "verifier": verifier, "expected": truth}
        for number, (verifier, truth, *_) in enumerate(ANSWERS)
    ]
    said = [[row[column] for row in ANSWERS] for column in (2, 3, 4)]
    right = [verified.grade(samples, answers) for answers in said]
    assert [line.split() for line in verified.render(samples, said, right).splitlines()] == [
        ["held-out", "prompts", "SFT", "DPO", "RLVR"],
        ["verified", "(4)", "0.50", "0.25", "0.75"],
        ["verified:", "gsm8k", "(3)", "0.67", "0.33", "0.67"],
        ["verified:", "string_match", "(1)", "0.00", "0.00", "1.00"],
        ["question", "0", "4", "4!", "5!"],
        ["question", "3", "c", "a", "c", "a", "t", "t!", "C", "a", "t!"],
    ]


def test_the_first_column_is_the_model_that_dpo_started_from(tmp_path: Path) -> None:
    save_base(tmp_path / "sft")
    for name, start in (("dpo", "sft"), ("rlvr", "dpo")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.resolved.yaml").write_text(f"model_name_or_path: {tmp_path / start}\n")
    samples = [{"prompt": "the cat", "verifier": "gsm8k", "expected": "1", "before": "2", "after": "1"}]
    (tmp_path / "rlvr" / "samples.json").write_text(json.dumps(samples))
    table = verified.compare(tmp_path / "rlvr", tmp_path / "unread.jsonl").splitlines()
    assert table[1].split() == ["verified", "(1)", "0.00", "0.00", "1.00"]
    [answer] = verified.answer_with(tmp_path / "sft", samples)
    assert answer.strip() in table[3]

"""Sampling through transformers: ends, cuts, seeds; what both engines say of one model is in tests/e2e."""

from pathlib import Path

import pytest
import torch

from tests.tiny import save_base, tiny_model, tiny_tokenizer
from tulu_recipes.sampling import (
    Answer,
    RowDraws,
    TransformersSampler,
    eos_ids,
    generate_answers,
    load_sampler,
    num_truncated,
    sample_seed,
)

TOKENIZER = tiny_tokenizer()
PROMPTS = ["the cat", "how many legs has a red mat and a blue one", "it said"]


@pytest.fixture(scope="module")
def sampler() -> TransformersSampler:
    return TransformersSampler(tiny_model(len(TOKENIZER)).eval(), TOKENIZER, batch_size=2)


@torch.no_grad()
def one_by_one(sampler: TransformersSampler, prompt: str, length: int) -> list[int]:
    """Greedy, a token and a forward pass at a time, without padding or cache."""
    ids = TOKENIZER(prompt)["input_ids"]
    answer: list[int] = []
    while len(answer) < length and (not answer or answer[-1] != TOKENIZER.eos_token_id):
        logits = sampler.model(input_ids=torch.tensor([ids + answer])).logits[0, -1]
        answer.append(int(logits.argmax()))
    return answer


def test_greedy_answers_are_the_most_likely_tokens_in_the_order_of_the_prompts(sampler: TransformersSampler) -> None:
    answers = sampler.generate(PROMPTS, max_new_tokens=6)
    assert [[answer.token_ids for answer in of_one] for of_one in answers] == [
        [one_by_one(sampler, prompt, 6)] for prompt in PROMPTS
    ]
    assert [answer.text for (answer,) in answers] == [
        TOKENIZER.decode(answer.token_ids, skip_special_tokens=True) for (answer,) in answers
    ]


def test_an_answer_depends_on_seed_prompt_and_number_alone(sampler: TransformersSampler) -> None:
    def drawn(prompts: list[str], **keys: int) -> list[list[Answer]]:
        return sampler.generate(prompts, max_new_tokens=6, temperature=1.0, **{"n": 2, "seed": 5} | keys)

    answers = drawn(PROMPTS)
    assert drawn(PROMPTS) == answers
    assert drawn(PROMPTS[::-1]) == answers[::-1]
    assert drawn(PROMPTS[1:2]) == answers[1:2]
    assert [of_one[:1] for of_one in answers] == drawn(PROMPTS, n=1)
    assert all(first != second for first, second in answers)
    assert drawn(PROMPTS, seed=6) != answers
    torch.manual_seed(0)
    assert drawn(PROMPTS) == answers


def test_draws_follow_the_scores() -> None:
    shares = torch.tensor([0.5, 0.25, 0.25, 0.0])
    draws = RowDraws([sample_seed(0, [], sample) for sample in range(4000)])
    tokens = draws(torch.empty(4000, 0), shares.log().expand(4000, 4)).argmax(dim=-1)
    found = torch.bincount(tokens, minlength=4) / 4000
    # four standard deviations
    assert found.tolist() == pytest.approx(shares.tolist(), abs=0.032)
    assert found[3] == 0


def test_top_p_keeps_the_likeliest_alone(sampler: TransformersSampler) -> None:
    greedy = sampler.generate(PROMPTS, max_new_tokens=4)
    assert sampler.generate(PROMPTS, max_new_tokens=4, temperature=1.0, top_p=1e-6) == greedy


def test_answers_end_at_the_eos_of_tokenizer_and_generation_config(sampler: TransformersSampler) -> None:
    free = sampler.generate(PROMPTS, max_new_tokens=6)[0][0].token_ids
    model = tiny_model(len(TOKENIZER)).eval()
    model.generation_config.eos_token_id = [free[2], 7]
    ended = TransformersSampler(model, TOKENIZER)
    assert eos_ids(TOKENIZER, model.generation_config) == [TOKENIZER.eos_token_id, free[2], 7]
    answers = ended.generate(PROMPTS, max_new_tokens=6)
    end = free.index(free[2])
    assert answers[0][0].token_ids == free[: end + 1]
    assert answers[0][0].finish_reason == "stop"
    assert num_truncated(answers) == sum(
        len(answer.token_ids) == 6 and answer.token_ids[-1] not in (TOKENIZER.eos_token_id, free[2], 7)
        for (answer,) in answers
    )
    assert num_truncated(sampler.generate(PROMPTS, max_new_tokens=1)) == 3


def test_conversations_and_their_plain_text_have_the_same_answer(tmp_path: Path) -> None:
    sampler = load_sampler(str(save_base(tmp_path)))
    talk = [{"role": "user", "content": "how many legs has the cat"}]
    text = TOKENIZER.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    answers = sampler.generate([talk, text], max_new_tokens=4)
    assert answers[0] == answers[1]
    assert isinstance(sampler, TransformersSampler)
    assert generate_answers(sampler.model, TOKENIZER, [talk], max_new_tokens=4) == [answers[0][0].text]

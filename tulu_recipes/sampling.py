"""Answers of a saved model to conversations, in batches: one interface, two engines.

Of both engines: an answer is a function of the seed, the prompt's tokens and the number of the sample, not of what
else is in the batch; with temperature 0 the most likely token is taken. Not guaranteed: the same drawn text from both
engines (they draw in their own ways), from different machines, or, in bfloat16, from batches of another size, whose
sums are rounded otherwise.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.integrations import deepspeed

from tulu_recipes.data.template import encode_chat

Engine = Literal["transformers", "vllm"]
Prompt = str | list[dict[str, str]]  # plain text, or a conversation that ends with a user turn


class Answer(NamedTuple):
    """text: without special tokens. token_ids: with the token that ended it.

    finish_reason: stop (an end token came) | length (`max_new_tokens` came first).
    """

    text: str
    token_ids: list[int]
    finish_reason: Literal["stop", "length"]


class Draw(NamedTuple):
    """One answer to be sampled. prompt: token ids; seed: of this answer alone."""

    prompt: list[int]
    seed: int


class Sampler(ABC):
    """A model and its tokenizer, behind either engine. ends: tokens that end an answer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: list[int]) -> None:
        self.tokenizer, self.ends = tokenizer, ends

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        n: int = 1,
        seed: int = 0,
    ) -> list[list[Answer]]:
        """For each prompt, `n` answers. They end at the EOS of the tokenizer or of the generation config."""
        encoded = [encode(self.tokenizer, prompt) for prompt in prompts]
        draws = [Draw(ids, sample_seed(seed, ids, sample)) for ids in encoded for sample in range(n)]
        sampled = self._sample(draws, max_new_tokens, float(temperature), top_p)
        answers = [answer_of(self.tokenizer, ids, self.ends) for ids in sampled]
        return [answers[first : first + n] for first in range(0, len(answers), n)]

    @abstractmethod
    def _sample(self, draws: list[Draw], max_new_tokens: int, temperature: float, top_p: float) -> list[list[int]]:
        """The token ids of each answer, in the order of `draws`; padding may follow the one that ends it."""


def load_sampler(
    folder: str,
    *,
    engine: Engine = "transformers",
    tokenizer: PreTrainedTokenizerBase | None = None,
    dtype: str = "auto",
    revision: str | None = None,
    **options: Any,
) -> Sampler:
    """A model folder or Hub id, ready to sample. dtype: "auto" is that of the checkpoint, with both engines.

    options: `batch_size` of transformers, or the arguments of `vllm.LLM`.
    """
    tokenizer = tokenizer or AutoTokenizer.from_pretrained(folder, revision=revision)
    if engine == "vllm":
        return VLLMSampler(folder, tokenizer, dtype=dtype, revision=revision, **options)
    return TransformersSampler(load_for_sampling(folder, dtype=dtype, revision=revision), tokenizer, **options)


def num_truncated(answers: Sequence[Sequence[Answer]]) -> int:
    """How many answers were cut at `max_new_tokens`."""
    return sum(answer.finish_reason == "length" for of_one in answers for answer in of_one)


# ---- transformers


class TransformersSampler(Sampler):
    """`generate` of transformers. batch_size: sequences at a time; prompts of a length go together."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int = 16) -> None:
        super().__init__(tokenizer, eos_ids(tokenizer, model.generation_config))
        self.model, self.batch_size = model, batch_size

    def _sample(self, draws: list[Draw], max_new_tokens: int, temperature: float, top_p: float) -> list[list[int]]:
        order = sorted(range(len(draws)), key=lambda row: len(draws[row].prompt))
        sampled: dict[int, list[int]] = {}
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            processors = LogitsProcessorList()
            if temperature > 0:
                of_rows = RowDraws([draws[row].seed for row in rows])
                processors += [TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p), of_rows]
            batch = self._generate([draws[row].prompt for row in rows], max_new_tokens, processors)
            sampled |= dict(zip(rows, batch, strict=True))
        return [sampled[row] for row in range(len(draws))]

    @torch.no_grad()
    def _generate(
        self, prompts: list[list[int]], max_new_tokens: int, processors: LogitsProcessorList
    ) -> list[list[int]]:
        """Padding is on the left and masked, with EOS, so that a model without a padding embedding can be sampled."""
        width, padding = max(map(len, prompts)), self.ends[0]
        input_ids = torch.tensor([[padding] * (width - len(ids)) + ids for ids in prompts])
        attention_mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
        output: Any = self.model.generate(  # transformers types it as a tensor
            input_ids=input_ids.to(self.model.device),
            attention_mask=attention_mask.to(self.model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,  # the draw, where there is one, is the last of the processors
            logits_processor=processors,
            eos_token_id=self.ends,
            pad_token_id=padding,
        )
        ids: list[list[int]] = output[:, width:].tolist()
        return ids


class RowDraws:
    """Draws each row's token with a generator of its own, and leaves it as the only one possible.

    torch draws for a whole batch from one generator: what a row gets would depend on the others.
    """

    def __init__(self, seeds: list[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        draws = [torch.rand((), generator=generator, dtype=torch.float64) for generator in self._generators]
        cumulative = scores.double().softmax(dim=-1).cumsum(dim=-1)
        points = torch.stack(draws).to(scores.device)[:, None] * cumulative[:, -1:]
        chosen = (cumulative <= points).sum(dim=-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


# ---- vLLM


class VLLMSampler(Sampler):
    """vLLM's offline engine. Of a process that ends with it: the engine keeps memory and threads until then.

    options: of `vllm.LLM`.
    """

    def __init__(
        self,
        folder: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        dtype: str = "auto",
        revision: str | None = None,
        **options: Any,
    ) -> None:
        from vllm import LLM  # takes ten seconds to import

        super().__init__(tokenizer, eos_ids(tokenizer, generation_config_of(folder, revision)))
        if dtype == "auto":  # which vLLM takes for bfloat16 where the checkpoint is float32
            config: Any = AutoConfig.from_pretrained(folder, revision=revision)
            dtype = str(config.dtype or torch.float32).removeprefix("torch.")
        if not torch.cuda.is_available():
            options = {"enforce_eager": True} | options  # compiling takes most of a minute and changes no number
        options |= {"dtype": dtype, "revision": revision, "skip_tokenizer_init": True}
        self.llm: Any = LLM(model=folder, **options)

    def _sample(self, draws: list[Draw], max_new_tokens: int, temperature: float, top_p: float) -> list[list[int]]:
        from vllm import SamplingParams

        parameters = [
            SamplingParams(
                max_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                seed=draw.seed,
                stop_token_ids=self.ends,
                detokenize=False,
            )
            for draw in draws
        ]
        prompts = [{"prompt_token_ids": draw.prompt} for draw in draws]
        outputs = self.llm.generate(prompts, parameters, use_tqdm=False)
        return [list(one.outputs[0].token_ids) for one in outputs]


# ---- both


def encode(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    if isinstance(prompt, str):
        ids: list[int] = tokenizer(prompt)["input_ids"]
        return ids
    return encode_chat(tokenizer, prompt, add_generation_prompt=True)[0]


def eos_ids(tokenizer: PreTrainedTokenizerBase, config: GenerationConfig | None) -> list[int]:
    """The tokens that end an answer: of the tokenizer first, then of the generation config."""
    more = config.eos_token_id if config is not None and config.eos_token_id is not None else []
    listed = [tokenizer.eos_token_id, *(more if isinstance(more, list) else [more])]
    return list(dict.fromkeys(listed))


def generation_config_of(folder: str, revision: str | None) -> GenerationConfig | None:
    try:
        return GenerationConfig.from_pretrained(folder, revision=revision)
    except OSError:  # a model without one
        return None


def sample_seed(seed: int, prompt_ids: list[int], sample: int) -> int:
    """A seed for one answer (63 bits), of its own prompt and number alone."""
    digest = hashlib.blake2b(repr((seed, prompt_ids, sample)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def answer_of(tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: list[int]) -> Answer:
    """The answer in generated tokens, which go on with padding after the one that ends it."""
    end = next((position for position, token in enumerate(ids) if token in ends), None)
    kept = ids if end is None else ids[: end + 1]
    return Answer(tokenizer.decode(kept, skip_special_tokens=True), kept, "length" if end is None else "stop")


def load_for_sampling(folder: str, *, dtype: str = "auto", revision: str | None = None) -> PreTrainedModel:
    """A model folder or Hub id, ready to generate on the accelerator at hand; adapters are put on their base."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, revision=revision)
    loaded: PreTrainedModel = model.to(device).eval()
    return loaded


@contextmanager
def outside_zero3() -> Iterator[None]:
    """Load and generate within on this process alone, although the run around it shards its models (ZeRO-3).

    Otherwise `from_pretrained` keeps a shard of each weight, and `generate` waits for ranks that do not take part.
    """
    run_config = deepspeed._hf_deepspeed_config_weak_ref  # transformers has a setter for it, but no getter
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = run_config


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: list[list[dict[str, str]]],
    *,
    max_new_tokens: int,
    batch_size: int = 16,
) -> list[str]:
    """Greedy answer to each conversation, which ends with a user turn; without the end-of-turn token."""
    sampler = TransformersSampler(model, tokenizer, batch_size=batch_size)
    return [answers[0].text for answers in sampler.generate(conversations, max_new_tokens=max_new_tokens)]

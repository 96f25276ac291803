"""The sizes of a decoder model, read from its config.json, and how many parameters follow from them.

Nothing is downloaded and no weight is touched: `plan` answers for a 405B model on a laptop. Counts are exact for
the architectures in ARCHITECTURES (Llama-like decoders); any other is refused by name, because a count that is
nearly right would make every figure of the plan quietly wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tulu_recipes.errors import DataError, Problem

Setting = bool | Literal["config"]


@dataclass(frozen=True)
class Architecture:
    """What sets one Llama-like architecture apart, as far as sizes go.

    qkv_bias, output_bias, mlp_bias: True, False, or "config" where config.json decides, by its keys
        attention_bias and mlp_bias.
    norms_per_layer: RMS norms of hidden_size in each layer; the model has one more at its end.
    query_key_norm: extra RMS norms on queries and keys: per head_dim, or over all heads together.
    fused_linears: q, k, v are one matrix `qkv_proj`, gate and up are one `gate_up_proj` (names for LoRA).
    tied, head_dim: defaults of the transformers config class, used where config.json leaves the key out.
    """

    qkv_bias: Setting = False
    output_bias: Setting = False
    mlp_bias: Setting = False
    norms_per_layer: int = 2
    query_key_norm: Literal["none", "per_head", "all_heads"] = "none"
    fused_linears: bool = False
    tied: bool = False
    head_dim: int | None = None


# Source: the configuration and modeling files of transformers 5.17; tests compare counts with the built models.
ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(qkv_bias="config", output_bias="config", mlp_bias="config"),
    "mistral": Architecture(),
    "qwen2": Architecture(qkv_bias=True),
    "qwen3": Architecture(qkv_bias="config", output_bias="config", query_key_norm="per_head", head_dim=128),
    "smollm3": Architecture(qkv_bias="config", output_bias="config", mlp_bias="config", tied=True),
    "olmo2": Architecture(qkv_bias="config", output_bias="config", query_key_norm="all_heads"),
    "granite": Architecture(qkv_bias="config", output_bias="config", mlp_bias="config"),
    "phi3": Architecture(fused_linears=True),
    "gemma": Architecture(qkv_bias="config", output_bias="config", tied=True, head_dim=256),
    "gemma2": Architecture(qkv_bias="config", output_bias="config", norms_per_layer=4, tied=True, head_dim=256),
}


@dataclass(frozen=True)
class Linear:
    """One projection of a decoder layer: a (out_features, in_features) matrix."""

    name: str
    in_features: int
    out_features: int
    bias: bool

    @property
    def num_parameters(self) -> int:
        return self.in_features * self.out_features + (self.out_features if self.bias else 0)


@dataclass(frozen=True)
class ModelShape:
    """Sizes of one decoder model, under the key names of config.json."""

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ModelShape":
        """Read the sizes from the contents of a transformers config.json; a nested text_config is followed.

        Raises:
            DataError: unknown-architecture for a model_type that ARCHITECTURES does not list;
                model-config-incomplete when a size is absent or not a positive integer.
        """
        text = config.get("text_config", config)
        model_type = text.get("model_type", config.get("model_type"))
        architecture = ARCHITECTURES.get(str(model_type))
        if architecture is None:
            raise DataError(
                Problem(
                    "unknown-architecture",
                    "config.json",
                    f"model_type {model_type!r} is not one whose sizes are known, so memory and cost cannot be told.",
                    f"Train on without an estimate, or use one of: {', '.join(ARCHITECTURES)}.",
                )
            )
        hidden_size = _size(text, "hidden_size")
        num_attention_heads = _size(text, "num_attention_heads")
        own_head_dim = architecture.head_dim or hidden_size // num_attention_heads
        return cls(
            model_type=str(model_type),
            hidden_size=hidden_size,
            num_hidden_layers=_size(text, "num_hidden_layers"),
            num_attention_heads=num_attention_heads,
            num_key_value_heads=_size(text, "num_key_value_heads", num_attention_heads),
            head_dim=_size(text, "head_dim", own_head_dim),
            intermediate_size=_size(text, "intermediate_size"),
            vocab_size=_size(text, "vocab_size"),
            max_position_embeddings=_size(text, "max_position_embeddings"),
            tie_word_embeddings=_flag(text, config, "tie_word_embeddings", architecture.tied),
            attention_bias=_flag(text, {}, "attention_bias", False),
            mlp_bias=_flag(text, {}, "mlp_bias", False),
        )

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.model_type]

    @property
    def query_size(self) -> int:
        """Features of all query heads together; differs from hidden_size where head_dim is set on its own."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Features of all key heads together; the values have as many."""
        return self.num_key_value_heads * self.head_dim

    @property
    def attention_linears(self) -> tuple[Linear, ...]:
        hidden, query, key_value = self.hidden_size, self.query_size, self.key_value_size
        qkv_bias = self._bias(self.architecture.qkv_bias, self.attention_bias)
        output = Linear("o_proj", query, hidden, self._bias(self.architecture.output_bias, self.attention_bias))
        if self.architecture.fused_linears:
            return (Linear("qkv_proj", hidden, query + 2 * key_value, qkv_bias), output)
        return (
            Linear("q_proj", hidden, query, qkv_bias),
            Linear("k_proj", hidden, key_value, qkv_bias),
            Linear("v_proj", hidden, key_value, qkv_bias),
            output,
        )

    @property
    def mlp_linears(self) -> tuple[Linear, ...]:
        hidden, inner = self.hidden_size, self.intermediate_size
        bias = self._bias(self.architecture.mlp_bias, self.mlp_bias)
        down = Linear("down_proj", inner, hidden, bias)
        if self.architecture.fused_linears:
            return (Linear("gate_up_proj", hidden, 2 * inner, bias), down)
        return (Linear("gate_proj", hidden, inner, bias), Linear("up_proj", hidden, inner, bias), down)

    @property
    def linears(self) -> tuple[Linear, ...]:
        """The projections of one layer."""
        return self.attention_linears + self.mlp_linears

    @property
    def norm_parameters_per_layer(self) -> int:
        extra = {
            "none": 0,
            "per_head": 2 * self.head_dim,
            "all_heads": self.query_size + self.key_value_size,
        }[self.architecture.query_key_norm]
        return self.architecture.norms_per_layer * self.hidden_size + extra

    @property
    def parameters_per_layer(self) -> int:
        return sum(linear.num_parameters for linear in self.linears) + self.norm_parameters_per_layer

    @property
    def embedding_parameters(self) -> int:
        """One (vocab_size, hidden_size) table: the input embedding, and also the LM head where they are tied."""
        return self.vocab_size * self.hidden_size

    @property
    def num_parameters(self) -> int:
        """All trained numbers of the model; a tied table is counted once, as transformers counts it."""
        tables = 1 if self.tie_word_embeddings else 2
        return tables * self.embedding_parameters + self.non_embedding_parameters

    @property
    def non_embedding_parameters(self) -> int:
        """All parameters but the input embedding and the LM head."""
        return self.num_hidden_layers * self.parameters_per_layer + self.hidden_size

    @property
    def scorer_parameters(self) -> int:
        """All trained numbers of a reward model: no LM head, and a score head of hidden_size numbers."""
        return self.embedding_parameters + self.non_embedding_parameters + self.hidden_size

    def lora_parameters(self, r: int, target_modules: str | Sequence[str] = ("q_proj", "v_proj")) -> int:
        """Trainable parameters of a LoRA adapter of rank r on the named projections of every layer.

        Each target adds A (r, in_features) and B (out_features, r): r · (in_features + out_features).

        Args:
            target_modules: names such as q_proj, or "all-linear" for every projection but the LM head.
        Raises:
            DataError: lora-target-unknown when the model has no projection of that name.
        Source: arXiv 2106.09685, section 4.1; peft's default targets for Llama are q_proj and v_proj.
        """
        return self.num_hidden_layers * sum(
            r * (linear.in_features + linear.out_features) for linear in self.lora_targets(target_modules)
        )

    def lora_targets(self, target_modules: str | Sequence[str]) -> tuple[Linear, ...]:
        """The projections of one layer that carry an adapter, in the order of the layer."""
        if target_modules == "all-linear":
            return self.linears
        wanted = [target_modules] if isinstance(target_modules, str) else list(target_modules)
        known = [linear.name for linear in self.linears]
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise DataError(
                Problem(
                    "lora-target-unknown",
                    "lora_target_modules",
                    f"{', '.join(unknown)}: a {self.model_type} layer has no such projection, so nothing would train.",
                    f"Name some of: {', '.join(known)}; or write all-linear.",
                )
            )
        return tuple(linear for linear in self.linears if linear.name in wanted)

    @staticmethod
    def _bias(setting: Setting, in_config: bool) -> bool:
        return in_config if setting == "config" else setting


def _size(config: Mapping[str, Any], key: str, fallback: int | None = None) -> int:
    """A positive integer; absent and null mean the fallback, as in transformers."""
    value = config.get(key)
    if value is None:
        value = fallback
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DataError(
            Problem(
                "model-config-incomplete",
                "config.json",
                f"{key} is {value!r}; a positive whole number is needed to tell the size of the model.",
                "Take config.json from the model's repository, or write the size in.",
            )
        )
    return value


def _flag(first: Mapping[str, Any], second: Mapping[str, Any], key: str, fallback: bool) -> bool:
    for config in (first, second):
        if config.get(key) is not None:
            return bool(config[key])
    return fallback

import pytest

from tulu_recipes.config.model_shape import ARCHITECTURES, ModelShape
from tulu_recipes.errors import DataError

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
LLAMA_70B = LLAMA_8B | {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "intermediate_size": 28672,
}
LLAMA_405B = LLAMA_8B | {
    "hidden_size": 16384,
    "num_hidden_layers": 126,
    "num_attention_heads": 128,
    "intermediate_size": 53248,
}
SMOLLM2_135M = {
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
QWEN25_05B = {
    "model_type": "qwen2",
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}


# The counts that the weight files on the Hub state.
@pytest.mark.parametrize(
    ("config", "count"),
    [
        (LLAMA_8B, 8_030_261_248),
        (LLAMA_70B, 70_553_706_496),
        (LLAMA_405B, 405_853_388_800),
        (SMOLLM2_135M, 134_515_008),
        (QWEN25_05B, 494_032_768),
    ],
    ids=["llama-8b", "llama-70b", "llama-405b", "smollm2-135m", "qwen2.5-0.5b"],
)
def test_published_counts_are_met_to_the_last_parameter(config, count):
    assert ModelShape.from_config(config).num_parameters == count


def test_embeddings_are_counted_apart():
    shape = ModelShape.from_config(LLAMA_8B)
    assert shape.embedding_parameters == 128256 * 4096
    assert shape.non_embedding_parameters == 8_030_261_248 - 2 * 128256 * 4096


VARIANTS = [
    {},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": False},
    {"head_dim": 16},
    {"attention_bias": True, "mlp_bias": True},
    {"num_key_value_heads": 6},
]
# phi3 and olmo2 take head_dim from hidden_size and have no key for it.
MODELS = [
    (model_type, variant)
    for model_type in ARCHITECTURES
    for variant in VARIANTS
    if not (model_type in ("phi3", "olmo2") and "head_dim" in variant)
]


@pytest.mark.integration
@pytest.mark.parametrize("written", ["whole config", "what differs from the defaults"])
@pytest.mark.parametrize(("model_type", "variant"), MODELS, ids=str)
def test_count_equals_that_of_the_built_model(model_type, variant, written):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2}
    sizes |= {"intermediate_size": 80, "vocab_size": 131, "max_position_embeddings": 64}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(model_type, **sizes | tokens | variant)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    contents = config.to_dict() if written == "whole config" else config.to_diff_dict()
    assert ModelShape.from_config(sizes | contents).num_parameters == model.num_parameters()


@pytest.mark.integration
@pytest.mark.parametrize("target_modules", [["q_proj", "v_proj"], ["o_proj", "gate_proj", "down_proj"], "all-linear"])
def test_lora_count_equals_pefts(target_modules):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = SMOLLM2_135M | {"num_hidden_layers": 2}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**sizes))
        adapted = get_peft_model(model, LoraConfig(r=8, target_modules=target_modules, task_type="CAUSAL_LM"))
    trainable, _ = adapted.get_nb_trainable_parameters()
    assert ModelShape.from_config(sizes).lora_parameters(8, target_modules) == trainable


def test_lora_adds_r_times_both_sides_of_each_target():
    # q: 4096 -> 4096, v: 4096 -> 1024
    expected = 32 * 16 * ((4096 + 4096) + (4096 + 1024))
    assert ModelShape.from_config(LLAMA_8B).lora_parameters(16, ["q_proj", "v_proj"]) == expected


def test_the_text_half_of_a_nested_config_is_read():
    nested = {"model_type": "llava", "text_config": LLAMA_8B}
    assert ModelShape.from_config(nested) == ModelShape.from_config(LLAMA_8B)


def test_absent_keys_take_the_defaults_of_transformers():
    config = {key: LLAMA_8B[key] for key in LLAMA_8B if key not in ("num_key_value_heads", "tie_word_embeddings")}
    shape = ModelShape.from_config(config | {"head_dim": None})
    assert (shape.num_key_value_heads, shape.head_dim, shape.tie_word_embeddings) == (32, 128, False)


def test_unknown_architecture_is_refused_by_name():
    with pytest.raises(DataError, match="unknown-architecture") as refusal:
        ModelShape.from_config(LLAMA_8B | {"model_type": "mamba"})
    assert "'mamba'" in str(refusal.value)
    assert "llama, mistral" in str(refusal.value)


@pytest.mark.parametrize("value", [None, 0, "4096", 2.5, True])
def test_a_size_that_is_no_positive_whole_number_is_refused(value):
    with pytest.raises(DataError, match="model-config-incomplete") as refusal:
        ModelShape.from_config(LLAMA_8B | {"intermediate_size": value})
    assert f"intermediate_size is {value!r}" in str(refusal.value)


def test_a_lora_target_that_no_layer_has_is_refused_with_those_it_has():
    with pytest.raises(DataError, match="lora-target-unknown") as refusal:
        ModelShape.from_config(LLAMA_8B).lora_parameters(8, ["q_proj", "query_key_value"])
    assert "query_key_value" in str(refusal.value)
    assert "gate_proj" in str(refusal.value)

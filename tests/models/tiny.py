"""Tiny random models as a transformers folder and as a GGUF file with the same weights, in float32."""

from pathlib import Path
from typing import Any

CONTEXT = 256
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONTROL = ["<|im_start|>", "<|im_end|>"]
MERGES = [("a", "b"), ("ab", "c"), ("o", "r")]


def tokenizer() -> Any:
    """A tokenizer with a token for every byte and for a few merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in MERGES)]
    core = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=MERGES))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=CONTROL[1], additional_special_tokens=CONTROL, chat_template=TEMPLATE
    )


def transformers_folder(folder: Path, architecture: str = "llama", layers: int = 2, seed: int = 1) -> Path:
    """A random model that transformers loads."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

    words = tokenizer()
    config: Any = {"llama": LlamaConfig, "qwen2": Qwen2Config}[architecture](
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # transformers initialises biases to zero, which would hide a lost bias
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def gguf_file(folder: Path, target: Path, *, template: str | None = TEMPLATE, name: str | None = None) -> Path:
    """Convert the model in a folder to GGUF; `name` replaces the architecture's name by a wrong one."""
    import gguf
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, words = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    config = model.config
    writer = gguf.GGUFWriter(target, name or config.model_type)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    names = words.convert_ids_to_tokens(range(config.vocab_size))
    writer.add_token_list(names)
    writer.add_token_types([gguf.TokenType.CONTROL if token in CONTROL else gguf.TokenType.NORMAL for token in names])
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_eos_token_id(words.eos_token_id)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    architecture = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == config.model_type)
    tensor_names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight":
            continue
        module, _, kind = key.rpartition(".")
        values = tensor.numpy()
        count = heads.get(module.rpartition(".")[2])
        if config.model_type == "llama" and count:  # as llama.cpp's own converter does
            values = values.reshape(count, 2, values.shape[0] // count // 2, -1).swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(f"{tensor_names.get_name(module)}.{kind}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def lora_folder(base: Path, target: Path, **options: Any) -> Path:
    """Save a random adapter of all linear layers with peft."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from promptmii.models.hf.model import quiet

    torch.manual_seed(7)
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    defaults: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": modules, "init_lora_weights": False}
    with quiet():
        tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**defaults | options))
        tuned.save_pretrained(str(target))
    return target

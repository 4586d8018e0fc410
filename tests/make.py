"""Small real things for tests: a base with its tokenizer, an adapter made by PEFT."""

from __future__ import annotations

import json
from pathlib import Path

END = "<|endoftext|>"


def make_base(folder: Path, *, seed: int, layers: int = 2, width: int = 32, positions: int = 64) -> Path:
    """A random GPT-2 saved by transformers, with a byte-level BPE of a few hundred tokens."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    size = make_tokenizer(folder)
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=size,
        n_positions=positions,
        n_embd=width,
        n_layer=layers,
        n_head=width // 8,
        bos_token_id=size - 1,
        eos_token_id=size - 1,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():  # random weights of 0.02 hardly depend on their input; these do
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
    model.save_pretrained(folder)
    return folder


def make_tokenizer(folder: Path, size: int = 400) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from tests.conftest import SENTENCES

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.add_special_tokens([END])
    tokenizer.save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": "GPT2Tokenizer", "bos_token": END, "eos_token": END, "unk_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return int(tokenizer.get_vocab_size())


def make_peft_adapter(
    folder: Path, base: Path, *, seed: int, r: int = 4, alpha: float = 8.0, targets: list[str]
) -> Path:
    """A LoRA with random A and B, attached and saved by PEFT itself."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2LMHeadModel

    torch.manual_seed(seed)
    model = GPT2LMHeadModel.from_pretrained(base)
    config = LoraConfig(
        r=r, lora_alpha=alpha, target_modules=targets, fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    wrapped = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.05)
    wrapped.save_pretrained(folder)
    return folder

"""The recipe's keys, with their defaults, limits and help. Nowhere else.

Flags, the docs table, ``init``'s commented file and the error texts are derived
from these models. ``auto`` is resolved once, when training starts, and stored
resolved with the version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer, model_validator

from adapterkit.errors import nearest
from adapterkit.recipe.bias import parse_bias

Auto = Literal["auto"]
Limited = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

TARGETS = {
    "attn": ("attn.c_attn", "attn.c_proj"),
    "mlp": ("mlp.c_fc", "mlp.c_proj"),
    "all": ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
}

CLEANERS = (
    "unicode",
    "html",
    "whitespace",
    "duplicates",
    "near-duplicates",
    "leaks",
    "promotions",
    "promotions-as-printed",
)


class Rule(BaseModel):
    """One cleaning rule with a value: exactly one of drop, replace, min_words, max_words."""

    model_config = Limited
    drop: str | None = Field(None, max_length=2000)  # documents in which the pattern is found
    replace: str | None = Field(None, max_length=2000)  # what the pattern finds, by ``to``
    to: str = ""
    min_words: int | None = Field(None, ge=0)
    max_words: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_of(self) -> Rule:
        given = [k for k in ("drop", "replace", "min_words", "max_words") if getattr(self, k) is not None]
        if len(given) != 1 or (self.to and given != ["replace"]):
            raise ValueError("one of drop, replace (with to), min_words, max_words")
        return self

    @model_serializer
    def _given(self) -> dict[str, str | int]:
        told = {k: getattr(self, k) for k in ("drop", "replace", "min_words", "max_words")}
        return {k: v for k, v in told.items() if v is not None} | (
            {"to": self.to} if self.replace is not None else {}
        )


class DataSpec(BaseModel):
    """Which text, and what one document is."""

    model_config = Limited
    source: str | list[str] = Field(
        "",
        description="File, folder, glob, Hub dataset (owner/name), or a list of files. "
        "A relative path is looked up beside the recipe.",
    )
    subset: str | None = Field(None, description="Configuration of a Hub dataset.")
    split: str = Field("train", description="Split of a Hub dataset, slices allowed: train[:50%].")
    revision: str | None = Field(None, description="Commit, branch or tag of a Hub dataset.")
    format: Literal[
        "auto", "txt", "html", "docx", "odt", "epub", "jsonl", "json", "csv", "tsv", "parquet"
    ] = Field("auto", description="How files are read; auto goes by each file's ending.")
    text: str | None = Field(
        None, description="Column that holds the text; found by itself when there is only one."
    )
    prompt: str | None = Field(
        None,
        description="Column that is read but not learned, or a text with {columns} in it; found by itself in common pairs.",
    )
    completion: str | None = Field(None, description="Column that is learned after the prompt.")
    separator: str = Field(
        "auto",
        description="What parts prompt from completion within a document, such as '<>'; or auto, none.",
    )
    template: str = Field(
        "auto",
        description="How a turn of a chat is written, with {role} and {content}; ends with what ends a turn.",
    )
    document: str = Field(
        "auto",
        min_length=1,
        description="One document is: auto, line, blank-line, file, row, article (WikiText), or a delimiter such as '<eos>'.",
    )
    reflow: bool = Field(True, description="Join the lines of prose that was wrapped at a column.")
    clean: list[str | Rule] = Field(
        default_factory=list,
        description="Rules in their order: "
        + ", ".join(CLEANERS)
        + ", {drop: PATTERN}, {replace: PATTERN, to: TEXT}, "
        "{min_words: N}, {max_words: N}.",
    )
    validation: Annotated[float, Field(gt=0, le=0.5)] | str = Field(
        0.1,
        description="What is kept out of training to test on: a share of the tokens, a split of the Hub dataset, a file, or none.",
    )
    packing: Literal["isolated", "concat", "none"] = Field(
        "isolated",
        description="Documents in one row do not see each other (isolated), do (concat), or have a row each (none).",
    )
    pad_to: Annotated[int, Field(ge=16, le=1024)] | None = Field(
        None, description="Length that every row is padded to when packing is none."
    )
    truncate: bool = Field(
        False,
        description="Drop what does not fit a row, as tutorials do, and count it; long documents are split else.",
    )
    skip_unreadable: bool = Field(False, description="Train although files are left out that can't be read.")
    allow_bad_rows: bool = Field(False, description="Train although over 1 % of the rows are malformed.")

    @field_validator("clean")
    @classmethod
    def _known_words(cls, rules: list[str | Rule]) -> list[str | Rule]:
        for word in rules:
            if isinstance(word, str) and word not in CLEANERS:
                close = nearest(word, CLEANERS)
                raise ValueError(f"no rule {word!r}" + (f", did you mean {close!r}?" if close else ""))
        return rules


class LoraSpec(BaseModel):
    """Shape of a LoRA adapter (Hu et al. 2021), peft's names without the ``lora_`` prefix."""

    model_config = Limited
    r: int = Field(8, ge=1, le=256, description="Rank of the update.")
    alpha: Annotated[float, Field(gt=0, le=4096)] | Auto = Field(
        "auto", description="Scale: the update is multiplied by alpha / r; auto is 2r."
    )
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout on the way into the update.")
    rslora: bool = Field(
        False,
        description="Scale by alpha / sqrt(r) (Kalajdzievski 2023), so that a high rank is not held back.",
    )
    targets: str | list[str] = Field(
        "mlp",  # at equal file size better than attn and a little better than all, see docs/training.md
        description="attn, mlp, all, or a list of exact names such as attn.c_attn.",
    )


class TrainSpec(BaseModel):
    """How the weights are found."""

    model_config = Limited
    epochs: Annotated[float, Field(gt=0, le=1000)] | Auto = Field(
        "auto",
        description="Passes over the text; auto is up to 20 (more for very short texts: at least 60 steps), stopping when the test gets no better 3 times, and 5 without a test.",
    )
    tokens_per_step: Annotated[int, Field(ge=32, le=1_048_576)] | Auto = Field(
        "auto",
        description="Tokens learned from in one optimizer step; auto is a hundredth of the text, 1,024 to 16,384.",
    )
    batch_size: Annotated[int, Field(ge=1, le=1024)] | Auto = Field(
        "auto", description="Rows computed at once; it only cuts a step into pieces."
    )
    max_length: Annotated[int, Field(ge=16, le=1024)] | Auto = Field(
        "auto", description="Tokens in a row; auto is what the base can see."
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] | Auto = Field(
        "auto", description="Peak rate of AdamW; auto is 2e-4 for lora, 5e-5 for full."
    )
    scheduler: Literal["linear", "cosine", "constant"] = Field("linear", description="How the rate falls.")
    warmup_steps: int = Field(0, ge=0, le=100_000, description="Steps in which the rate rises from 0.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="Weight decay of AdamW.")
    grad_clip: float = Field(1.0, gt=0, le=1000, description="Largest norm of the gradient.")
    log_steps: Annotated[int, Field(ge=1)] | Auto = Field(
        "auto", description="Steps between points of the loss curve; auto gives about 100."
    )
    eval_steps: Annotated[int, Field(ge=1)] | Auto = Field(
        "auto", description="Steps between tests on the held-out text; auto is once a pass."
    )
    base_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Dropout in the base while it trains; a frozen base is better off without.",
    )
    minutes: Annotated[float, Field(gt=0, le=100_000)] | None = Field(
        None, description="Time for the steps; the best weights found by then are kept."
    )
    save_steps: Annotated[int, Field(ge=1)] | Auto = Field(
        "auto", description="Steps between checkpoints; auto is about once a minute on a CPU."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="Number format of the base's arithmetic; auto is fp16 on CUDA, and on a CPU bf16 where that was measured to be faster.",
    )
    quantize: Literal["none", "8bit", "4bit", "auto"] = Field(
        "none", description="Load the frozen base in 8 or 4 bits; auto only where it would not fit else."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations twice instead of keeping them: less memory, a third slower."
    )
    fast: bool = Field(True, description="Our own steps for GPT-2; false takes transformers' for comparison.")
    report_to: list[str] = Field(
        default_factory=list,
        description="Trackers of transformers' Trainer told of the curve, such as tensorboard.",
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1.")
    seed: int = Field(17, ge=0, le=2**32 - 1, description="Seed of initial weights, order and dropout.")


class SampleSpec(BaseModel):
    """How it writes by default; travels with the adapter."""

    model_config = Limited
    temperature: float = Field(0.8, ge=0, le=10, description="0 always takes the likeliest token.")
    top_k: int = Field(0, ge=0, le=100_000, description="Draw from the k likeliest tokens; 0 is all.")
    top_p: float = Field(
        0.95, gt=0, le=1, description="Draw from the likeliest tokens that make up this share."
    )
    min_p: float = Field(
        0.0, ge=0, le=1, description="Draw from tokens at least this share as likely as the likeliest."
    )
    typical_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Draw from the tokens of usual surprise that make up this share (Meister et al. 2022).",
    )
    repetition_penalty: float = Field(
        1.0, ge=0.1, le=10, description="Above 1 makes tokens already seen less likely (Keskar et al. 2019)."
    )
    presence_penalty: float = Field(
        0.0, ge=-2, le=2, description="Taken from the score of each token written so far, as OpenAI does."
    )
    frequency_penalty: float = Field(
        0.0, ge=-2, le=2, description="The same, for each time that it was written."
    )
    no_repeat_ngram_size: int = Field(
        0, ge=0, le=1024, description="No run of so many tokens comes twice; 0 allows it."
    )
    logit_bias: list[str] = Field(
        default_factory=list,
        description="Added to the score of a token, given by its text or id: ' whale=5', '262=-100'; -100 bans it.",
    )
    max_new_tokens: int = Field(200, ge=1, le=100_000, description="Stop after so many new tokens.")
    prompts: list[str] = Field(default_factory=list, description="Beginnings written on after training.")

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _as_written(cls, bias: Any) -> Any:
        """A mapping, as OpenAI's, is the same in another form."""
        return [f"{token}={value}" for token, value in bias.items()] if isinstance(bias, Mapping) else bias

    @field_validator("logit_bias")
    @classmethod
    def _understood(cls, bias: list[str]) -> list[str]:
        for text in bias:
            parse_bias(text)
        return bias


class Recipe(BaseModel):
    """Base + data + method + training + sampling."""

    model_config = Limited
    base: str = Field("gpt2", description="Hub id, folder, or embedded (a toy that comes with the package).")
    data: DataSpec = DataSpec()
    method: Literal["lora", "full"] = Field("lora", description="Train a LoRA adapter, or every weight.")
    lora: LoraSpec = LoraSpec()
    train: TrainSpec = TrainSpec()
    sample: SampleSpec = SampleSpec()


def target_modules(targets: str | list[str]) -> list[str]:
    """Exact module names of a preset or a list; unknown ones are left for the strict match."""
    if isinstance(targets, str):
        return list(TARGETS.get(targets, (targets,)))
    return list(targets)

"""README.md of a version: what it is, how good, how to load it. Samples are generated, never quoted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapterkit.registry.version import Sample

LOAD_LORA = """```python
from adapterkit import Generator

Generator("{base}")("Once upon a time", adapter="{name}")

# with plain PEFT
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "THIS FOLDER")
```"""
LOAD_FULL = """```python
from transformers import pipeline

pipeline("text-generation", "THIS FOLDER")("Once upon a time")
```"""


def card(manifest: dict[str, Any], samples: Sequence[Sample]) -> str:
    """The card in Hub format; the number of the version is not known yet and not named."""
    base, data, metrics, recipe = (manifest[k] for k in ("base", "data", "metrics", "recipe"))
    how = LOAD_LORA if manifest["kind"] == "lora" else LOAD_FULL
    front = ["---", "library_name: " + ("peft" if manifest["kind"] == "lora" else "transformers")]
    front += [
        f"base_model: {base['id']}",
        "pipeline_tag: text-generation",
        "tags: [gpt2, adapterkit]",
        "---",
        "",
    ]
    lines = [
        f"# {manifest['name']}",
        "",
        f"A {'LoRA adapter' if manifest['kind'] == 'lora' else 'full fine-tune'} of `{base['id']}`, made with AdapterKit.",
        "",
        f"- Text: {data['source']}, {data['documents']:,} documents, {data['words']:,} words "
        f"(fingerprint `{data['fingerprint'][:16]}`)",
        f"- Base weights: `{base['weights'][:16]}`"
        + (f", revision `{base['revision']}`" if base["revision"] else ""),
        f"- Trained: {recipe['train']['tokens_per_step']:,} tokens a step, rate {recipe['train']['learning_rate']:g}",
        *_scores(metrics),
        "",
        "## Load it",
        "",
        how.format(base=base["id"], name=manifest["name"]),
        "",
        "## Samples (generated)",
        "",
        *(f"> **{_quoted(s.prompt)}**{_quoted(s.text)}\n" for s in samples),
        "## Limits",
        "",
        "A small language model in the manner of its text. It makes things up, repeats what its text and base got wrong,",
        "and may say what it read word for word. Do not use it for facts or advice.",
        "",
    ]
    return "\n".join(front + lines)


def _scores(metrics: dict[str, Any]) -> list[str]:
    lines = []
    if metrics["perplexity"] is not None:
        lines.append(
            f"- Perplexity on {metrics['tokens']:,} tokens of unseen text: "
            f"{metrics['base_perplexity']:.1f} (base) -> {metrics['perplexity']:.1f}"
        )
    if metrics["stops"] is not None:
        lines.append(f"- Samples that end by themselves: {metrics['stops']:.0%}")
    if metrics["copied_words"] is not None:
        lines.append(f"- Longest run of words copied by a sample: {metrics['copied_words']}")
    return lines


def _quoted(text: str) -> str:
    return text.replace("\n", "\n> ")

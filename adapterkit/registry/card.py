"""README.md of a version: what it is, how good, how to load it. Samples are generated, never quoted."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from adapterkit.registry.rich import percent
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
        *_scores(metrics, base["id"]),
        "",
        "## Load it",
        "",
        how.format(base=base["id"], name=manifest["name"]),
        "",
        "## Samples (generated)",
        "",
        *(_sample(s) for s in samples),
        "## Limits",
        "",
        "A small language model in the manner of its text. It makes things up, repeats what its text and base got wrong,",
        "and may say what it read word for word. Do not use it for facts or advice.",
        "",
    ]
    return "\n".join(front + lines)


def _scores(metrics: dict[str, Any], base: str) -> list[str]:
    """Base against adapter as a table; nothing when nothing was measured."""
    rows = []
    if metrics["perplexity"] is not None:
        change = metrics["perplexity"] / metrics["base_perplexity"] - 1
        rows.append(
            f"| perplexity on {metrics['tokens']:,} tokens of unseen text | {metrics['base_perplexity']:.1f} "
            f"| {metrics['perplexity']:.1f} | {percent(change)} |"
        )
    if metrics["stops"] is not None:
        rows.append(f"| samples that end by themselves | | {metrics['stops']:.0%} | |")
    if metrics["copied_words"] is not None:
        rows.append(f"| longest run of words that a sample copied | | {metrics['copied_words']} | |")
    return ["", f"| | `{base}` | this | change |", "|---|---|---|---|", *rows] if rows else []


def _sample(s: Sample) -> str:
    """A quotation that keeps its line breaks; what a model wrote is no markup."""
    prompt = f"**{s.prompt.strip()}**" if s.prompt.strip() else ""
    text = f"{prompt}{s.text}" if prompt else s.text.lstrip()
    return "> " + escape(text, quote=False).replace("\n", "  \n> ") + "\n"

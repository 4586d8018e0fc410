"""README.md of a version, in the Hub's format: what it is, how good, how to load it. Samples are generated, never quoted.

Everything is told from the manifest; what that does not know is called unknown.
The number of the version is not known yet when it is written, and not named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from adapterkit.registry.rich import percent
from adapterkit.registry.version import Sample

HUB = {"gpt2": "openai-community/gpt2", "distilgpt2": "distilbert/distilgpt2"}
HUB |= {f"gpt2-{size}": f"openai-community/gpt2-{size}" for size in ("medium", "large", "xl")}
HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*")
SAMPLES = "## Samples (generated)"
LOAD_LORA = """With AdapterKit, where the adapter was trained or brought in with `adapterkit import`:

```python
from adapterkit import Generator

print(Generator({base})("Once upon a time", adapter={name}).text)
```

With plain PEFT:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained({hub})
model = PeftModel.from_pretrained(base, "THIS FOLDER")
tokenizer = AutoTokenizer.from_pretrained({hub})
ids = tokenizer(tokenizer.eos_token + "Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=100, do_sample=True)[0]))
```"""
LOAD_FULL = """With AdapterKit, where it was trained or brought in with `adapterkit import`:

```python
from adapterkit import Generator

print(Generator({base})("Once upon a time", adapter={name}).text)
```

With plain transformers (the folder holds the whole model and its tokenizer):

```python
from transformers import pipeline

print(pipeline("text-generation", "THIS FOLDER")("Once upon a time"))
```"""
USE = """For writing on from a beginning, in the manner of the text above. It is a small language model: it does not answer
questions, follow instructions or know what is true. Do not use it for facts, advice or decisions about people.

## Risks of generated text

It makes things up, names and numbers too, and says them in the same voice as the rest. It repeats what its text and its
base got wrong, prejudice and insults included. It may say what it read word for word, private or protected text too:
look for that before you publish what it writes. Say that a machine wrote it."""


def card(manifest: Mapping[str, Any], samples: Sequence[Sample]) -> str:
    """The card in Hub format.

    Args:
        manifest: of the version; schema, number, files and digest may be missing.
        samples: texts that it wrote; none where they would quote.
    """
    return _card(manifest, [_sample(s) for s in samples])


def again(manifest: Mapping[str, Any], before: str) -> str:
    """The card of a version that was made from another one's files, with the samples of its card.

    Args:
        manifest: of the new version.
        before: the card of the version it comes from.
    """
    _, is_there, rest = before.partition(f"\n{SAMPLES}\n")
    return _card(manifest, [rest.split("\n## ")[0].strip("\n") + "\n"] if is_there else [])


def _card(manifest: Mapping[str, Any], samples: Sequence[str]) -> str:
    parts = [
        _front(manifest),
        f"# {manifest['name']}\n\n{_what(manifest)}",
        "\n".join(_facts(manifest)) + "\n",
        _section("Recipe", _recipe(manifest)),
        _section("Scores", _scores(manifest)),
        f"## Load it\n\n{_load(manifest)}\n",
        _section("Samples (generated)", samples),
        f"## Intended use and limits\n\n{USE}\n",
        _section("Where it comes from", _lineage(manifest)),
    ]
    return "\n".join(part for part in parts if part)


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"## {title}", "", *lines, ""]) if lines else ""


# --- front matter -------------------------------------------------------------


def _front(manifest: Mapping[str, Any]) -> str:
    """YAML that the Hub reads; JSON's strings and lists are YAML's too."""
    is_lora, base = manifest["kind"] == "lora", _hub_id(manifest["base"])
    told: dict[str, Any] = {"library_name": "peft" if is_lora else "transformers"}
    if base is not None:  # the Hub knows models by their ids; a folder's name would be another model
        told |= {"base_model": base, "base_model_relation": "adapter" if is_lora else "finetune"}
    told |= {
        "pipeline_tag": "text-generation",
        "tags": ["gpt2", "adapterkit", *(["lora"] if is_lora else [])],
    }
    if licence := _data(manifest).get("licence"):
        told["license"] = licence
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in told.items()]
    return "\n".join(["---", *lines, "---", ""])


def _hub_id(base: Mapping[str, Any]) -> str | None:
    """The base's id on the Hub; None for a folder and for the one in the package."""
    name = str(base["id"])
    return HUB.get(name) or (name if HUB_ID.fullmatch(name) else None)


# --- what it is ---------------------------------------------------------------


def _what(manifest: Mapping[str, Any]) -> str:
    kind = "LoRA adapter" if manifest["kind"] == "lora" else "full fine-tune"
    base = _code(manifest["base"]["id"])
    if half := manifest.get("half"):
        return f"A copy in fp16 of the {kind} {_code(half['of'])} of {base}, made with AdapterKit.\n"
    if manifest.get("lineage", {}).get("how") == "merge":
        return f"A LoRA adapter merged into {base} by AdapterKit: a model of its own.\n"
    is_import = manifest.get("lineage", {}).get("how") == "import"
    return f"A {kind} of {base}, {'brought into' if is_import else 'made with'} AdapterKit.\n"


def _facts(manifest: Mapping[str, Any]) -> list[str]:
    base, data = manifest["base"], _data(manifest)
    lines = [f"- Base: {_code(base['id'])}, weights `{base['weights'][:16]}`"]
    if base.get("revision"):
        lines[0] += f", revision `{base['revision']}`"
    if base.get("forced"):
        lines.append(
            f"- It was made for {_code(base['named'])} and brought in for this base on the user's word."
        )
    if not data:
        if (manifest.get("lineage") or {}).get("how") == "blend":
            return [*lines, "- Text: that of the adapters it was blended of", "- Licence of the text: theirs"]
        return [*lines, "- Text: unknown", "- Licence of the text: unknown"]
    return [*lines, *_text(data)]


def _text(data: Mapping[str, Any]) -> list[str]:
    source = data["source"]
    names = ", ".join(_code(s) for s in ([source] if isinstance(source, str) else source))
    revision = f", revision `{data['revision']}`" if data.get("revision") else ""
    lines = [
        f"- Text: {names}{revision}, {data['documents']:,} documents, {data['words']:,} words "
        f"(fingerprint `{data['fingerprint'][:16]}`)",
        f"- Licence of the text: {data.get('licence') or 'not recorded'}",
    ]
    if data.get("train_tokens") is not None:
        lines.append(f"- Learned from {data['train_tokens']:,} tokens; {_held_out(data.get('held_out'))}")
    return lines


def _held_out(held: Mapping[str, Any] | None) -> str:
    if not held or not held.get("tokens"):
        return "nothing was kept back for a test"
    unit = str(held["unit"])  # one of them is "1 documents" otherwise
    unit = unit.removesuffix("s") if held["count"] == 1 else unit
    return f"tested on {held['tokens']:,} it never saw ({held['count']:,} {unit})"


def _data(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    return manifest.get("data") or {}


def _recipe(manifest: Mapping[str, Any]) -> list[str]:
    """The keys that decide what was learned, as a table; the whole recipe is in recipe.json."""
    recipe, lora = manifest.get("recipe") or {}, manifest.get("lora") or {}
    train = recipe.get("train") or {}
    rows = [("method", recipe.get("method", manifest["kind"]))]
    rows += [(f"lora.{k}", lora[k]) for k in ("r", "alpha", "targets") if k in lora]
    rows += [(f"train.{k}", train[k]) for k in TRAIN if train.get(k) is not None]
    rows += [("train.seed", str(train["seed"]))] if "seed" in train else []  # a name, not an amount
    told = [f"| `{key}` | {_cell(value)} |" for key, value in rows]
    rest = [] if train else ["", "How it was trained is unknown."]
    return ["| key | value |", "|---|---|", *told, *rest]


TRAIN = (
    "epochs",
    "tokens_per_step",
    "max_length",
    "learning_rate",
    "scheduler",
    "weight_decay",
    "precision",
)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def _scores(manifest: Mapping[str, Any]) -> list[str]:
    """Base against adapter as a table; nothing when nothing was measured."""
    metrics, base = manifest["metrics"], manifest["base"]["id"]
    rows = []
    if metrics.get("perplexity") is not None:
        change = metrics["perplexity"] / metrics["base_perplexity"] - 1
        rows.append(
            f"| perplexity on {metrics['tokens']:,} tokens of unseen text | {metrics['base_perplexity']:.1f} "
            f"| {metrics['perplexity']:.1f} | {percent(change)} |"
        )
    if metrics.get("stops") is not None:
        rows.append(f"| samples that end by themselves | | {metrics['stops']:.0%} | |")
    if metrics.get("copied_words") is not None:
        rows.append(f"| longest run of words that a sample copied | | {metrics['copied_words']} | |")
    if not rows:
        return ["Unknown: nothing was measured."]
    table = [f"| | {_code(base)} | this | change |", "|---|---|---|---|", *rows]
    half = manifest.get("half")
    told = f"Measured on `{half['of']}`, in full precision." if half else ""
    return [*table, "", told] if told else table


def _load(manifest: Mapping[str, Any]) -> str:
    how = LOAD_LORA if manifest["kind"] == "lora" else LOAD_FULL
    hub = _hub_id(manifest["base"]) or "THE BASE'S FOLDER"
    base = (
        manifest["base"]["id"] if hub != "THE BASE'S FOLDER" or manifest["base"]["id"] == "embedded" else hub
    )
    name = manifest["name"]
    return how.format(base=json.dumps(base), name=json.dumps(name), hub=json.dumps(hub))


def _lineage(manifest: Mapping[str, Any]) -> list[str]:
    told = manifest.get("lineage") or {}
    how, parents = told.get("how", "train"), told.get("parents") or []
    weights = told.get("weights") or [None] * len(parents)
    shares = ["" if w is None else f", times {w:g}" for w in weights]
    lines = [
        f"- Made by: {how}",
        *(f"- From the version with the digest `{p}`{w}" for p, w in zip(parents, shares, strict=False)),
    ]
    if {"method", "residual", "largest"} <= told.keys():
        more = "".join(f", {key} {told[key]:g}" for key in ("density", "seed") if key in told)
        lines.append(
            f"- Method: {told['method']}{more}. The stored update lacks {told['residual']:.2g} of the size "
            f"of the one that was meant (largest in one module: {told['largest']:.2g})."
        )
    if half := manifest.get("half"):
        lines.append(
            f"- fp16 changed the update by {half['difference']:.2g} of its size (largest in one module: {half['largest']:.2g})."
        )
    if came := manifest.get("imported"):
        lines += _import(came)
    made = manifest.get("environment") or {}
    if made:
        lines.append("- With " + ", ".join(f"{_cell(k)} {_cell(v)}" for k, v in sorted(made.items())))
    return lines


def _import(came: Mapping[str, Any]) -> list[str]:
    if "ref" in came:
        return [f"- Published first as {_code(came['ref'])}"]
    revision = f", revision `{came['revision']}`" if came.get("revision") else ""
    return [
        f"- Brought in from {_code(came['from'])}{revision}; sha256 of its weights there `{came['sha256']}`"
    ]


def _code(text: str) -> str:
    """A name as code: nothing in it is markup, and nothing ends it early."""
    return "`" + str(text).replace("`", "'").replace("\n", " ") + "`"


def _sample(s: Sample) -> str:
    """A quotation that keeps its line breaks; what a model wrote is no markup."""
    prompt = f"**{escape(s.prompt.strip(), quote=False)}**" if s.prompt.strip() else ""
    text = escape(s.text if prompt else s.text.lstrip(), quote=False)
    return "> " + f"{prompt}{text}".replace("\n", "  \n> ") + "\n"

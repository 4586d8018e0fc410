"""What one optimizer step learns from: the tutorials' recipes and ours, on the same texts.

    ADAPTERKIT_DATA=... python benchmarks/recipes.py

Prepares each pair of recipes in configs/ (NAME and NAME-tutorial) on a text at
hand with GPT-2's tokenizer, and prints slots and real tokens of a step, the
share of slots that carry real tokens, and the tokens that a pass never shows.
Nothing is trained. Writes benchmarks/results/recipes.json.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from adapterkit.data.prepare import prepare
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.recipe.load import from_file, packaged
from adapterkit.training.resolve import rows_per_step, tokens_per_step

CONTEXT = 1024  # GPT-2's


@dataclass(frozen=True)
class Step:
    recipe: str
    slots: int  # of a step
    real: float  # learned tokens of a step
    fill: float  # share of the slots that carry a token of the text
    unseen: int  # tokens dropped by truncation


def texts(data: Path, scratch: Path) -> dict[str, Path]:
    """A text for each pair of recipes; two are rewritten into the format that the recipe is for."""
    grimm = (data / "grimm" / "grimms.txt").read_text(encoding="utf-8")
    tales = [t.strip() for t in re.split(r"\n{4,}", grimm) if len(t) > 2000]
    stories = scratch / "reddit_short_stories.txt"
    stories.write_text("".join(f"<sos> {_on_a_line(t)} <eos>\n" for t in tales))
    chats = scratch / "chats.jsonl"
    rows = [json.loads(line) for line in (data / "gsm8k" / "train.jsonl").read_text().splitlines()]
    turns = (
        [{"role": "user", "content": r["question"]}, {"role": "assistant", "content": r["answer"]}]
        for r in rows
    )
    chats.write_text("".join(json.dumps({"messages": t}) + "\n" for t in turns))
    return {
        "lines": data / "dadjokes" / "jokes.txt",
        "text": data / "nltk-speeches" / "state_union.zip",
        "conversations": chats,
        "creative": data / "nltk-speeches" / "inaugural.zip",
        "shortstories": stories,
        "wikitext": data / "wikitext2" / "train.txt",
        "plaintext": data / "tinyshakespeare" / "input.txt",
    }


def _on_a_line(tale: str) -> str:
    paragraphs = (" ".join(p.split()) for p in re.split(r"\n\s*\n", tale))
    return " <nl> ".join(p for p in paragraphs if p)


def step(name: str, source: Path, tokenizer: Tokenizer) -> Step:
    path = packaged(name)
    assert path is not None
    recipe = from_file(path).recipe
    how = (
        "line" if recipe.data.document == "row" else recipe.data.document
    )  # a file of lines, where the Hub has rows
    spec = recipe.data.model_copy(update={"source": str(source), "document": how})
    length = CONTEXT if recipe.train.max_length == "auto" else recipe.train.max_length
    found = prepare(spec, tokenizer, length, strict=False)
    rows = found.train
    wanted = recipe.train.tokens_per_step
    per_step = rows_per_step(
        tokens_per_step(found.train_tokens) if wanted == "auto" else wanted, length, len(rows)
    )
    steps = math.ceil(len(rows) / per_step)
    return Step(name, per_step * rows.length, rows.tokens / steps, rows.tokens / rows.slots(), rows.cut)


def main() -> None:
    place = os.environ.get("ADAPTERKIT_DATA")
    if not place:
        raise SystemExit("ADAPTERKIT_DATA names no folder with the texts and gpt2-tokenizer/")
    data = Path(place).resolve()
    tokenizer = Tokenizer(data / "gpt2-tokenizer")
    found: list[Step] = []
    print(f"{'recipe':24} {'slots a step':>12} {'real tokens a step':>19} {'real':>7} {'never shown':>12}")
    with tempfile.TemporaryDirectory(prefix="adapterkit-bench-") as scratch:
        for name, source in texts(data, Path(scratch)).items():
            for each in (f"{name}-tutorial", name):
                s = step(each, source, tokenizer)
                found.append(s)
                print(f"{each:24} {s.slots:12,} {s.real:19,.0f} {s.fill:7.1%} {s.unseen:12,}", flush=True)
    target = Path(__file__).parent / "results" / "recipes.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps([asdict(s) for s in found], indent=2) + "\n")


if __name__ == "__main__":
    main()

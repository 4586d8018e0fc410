"""Train the small GPT-2 that comes inside the package.

Anyone can run it again; the texts are arguments::

    python scripts/train_embedded_base.py --to OUT --tokens 12_000_000 \\
        --text wikipedia=wikitext2/train.txt --text holmes=sherlock.txt \\
        --text speeches=state_union --text reviews=movie_reviews

Each text is cleaned by what it shows of itself (tokenised spacing, lower case,
lines wrapped at a column), split into documents, and every fiftieth document is
held out. A byte-level BPE is learned from the rest, then a GPT-2 is trained at
full context: Muon for the matrices inside the blocks, AdamW for the others.

``--evaluate`` scores the model in OUT again instead of training one.
``--minutes`` follows the clock instead of a token count; the count it reached
is written to the card, so that the run can be repeated with ``--tokens``.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel

END = "<|endoftext|>"
HELD_OUT_EVERY = 50
UNFIT = re.compile(r"\b(?:\w*fuck\w*|\w*shit\w*|cunt\w*|nigg\w*|rape[ds]?|bitch\w*|whore\w*|fag\w*)\b", re.I)
FOREIGN = re.compile("[^\u0000-\u024f\u2010-\u2027\u20ac\u00a3]")


@dataclass
class Corpus:
    """Documents of one source, in their order; every fiftieth is held out."""

    name: str
    documents: list[str] = field(default_factory=list)

    def part(self, held_out: bool) -> list[str]:
        return [d for i, d in enumerate(self.documents) if (i % HELD_OUT_EVERY == 7) == held_out]


# --- cleaning -----------------------------------------------------------------


def read_documents(path: Path) -> Iterator[str]:
    """Documents of a folder (a file each) or a file (cut at title lines or runs of blank lines)."""
    if path.is_dir():
        for file in sorted(path.rglob("*.txt")):
            yield _decode(file)
        return
    text = _decode(path)
    titles = r"\n (?== [^=\n]+ = \n)"  # the way WikiText marks an article
    cut = titles if len(re.findall(titles, text)) > 10 else r"\n(?:[ \t]*\n){3,}"
    yield from re.split(cut, text)


def _decode(path: Path) -> str:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")
    return text.replace("\r\n", "\n")


def clean(text: str, case: dict[str, str]) -> str:
    """Plain prose: one paragraph a line, no markup, nothing the tokenisation of old corpora left."""
    wrapped = _is_wrapped(text)
    blocks = re.split(r"\n[ \t]*\n", text) if wrapped else text.split("\n")
    tokenised = text.count(" , ") > text.count(", ") / 4
    lower = not re.search("[A-Z]", text[:2000])
    lines = (_clean_paragraph(" ".join(b.split()), tokenised, lower, case) for b in blocks)
    kept = [line for line in lines if len(line) > 1]
    if lower:  # such texts have a sentence a line
        kept = [" ".join(kept[i : i + 5]) for i in range(0, len(kept), 5)]
    return "\n".join(kept)


def _is_wrapped(text: str) -> bool:
    lines = [line for line in text.split("\n") if line.strip()]
    return len(lines) > 20 and sum(len(x) <= 90 for x in lines) / len(lines) > 0.97 and "\n\n" in text


def _clean_paragraph(line: str, tokenised: bool, lower: bool, case: dict[str, str]) -> str:
    line = re.sub(r"^(?:= )+(.*?)(?: =)+$", r"\1", line)
    sentences = re.split(r"(?<= [.!?]) (?=[^a-z])|(?<= [.!?]) (?=.)" if tokenised else r"(?<=[.!?]) ", line)
    kept = [s for s in sentences if not ("<unk>" in s or UNFIT.search(s) or FOREIGN.search(s))]
    if tokenised:
        kept = [_join(s) for s in kept]
    if lower:
        kept = [_sentence_case(s, case) for s in kept]
    return " ".join(kept).strip()


def _join(sentence: str) -> str:
    """Undo Penn-style spacing: ``he said , " no "`` becomes ``he said, "no"``."""
    s = re.sub(r" @(.)@ ", r"\1", sentence)
    s = re.sub(r" ([.,;:!?%)\]]+)", r"\1", s)
    s = re.sub(r"(?<=\d)( ?[–:] )(?=\d)", lambda m: m[1].strip(), s)
    s = re.sub(r"([(\[$#]) ", r"\1", s)
    s = re.sub(r" (n't|'(?:s|re|ve|ll|d|m)|')(?=\W|$)", r"\1", s)
    s = re.sub(r"\. \. \.", "...", s)
    parts = s.split('"')  # every second part stands inside quotation marks
    if len(parts) % 2 == 0:
        return s.replace('"', "").replace("  ", " ")
    return "".join(f'"{p.strip()}"' if i % 2 else p for i, p in enumerate(parts))


def _sentence_case(sentence: str, case: dict[str, str]) -> str:
    s = re.sub(r"(?<!['\w-])[a-z]+(?![\w-])", lambda m: case.get(m[0], m[0]), sentence)
    return re.sub(r"^(\W*)([a-z])", lambda m: m[1] + m[2].upper(), s)


def learn_case(texts: list[str]) -> dict[str, str]:
    """Words that cased texts write with a capital inside a sentence: american -> American."""
    seen: dict[str, Counter[str]] = {}
    for text in texts:
        for word in re.findall(r"(?<=[a-z,] )[A-Za-z]+", text):
            seen.setdefault(word.lower(), Counter())[word] += 1
    best = {low: c.most_common(1)[0] for low, c in seen.items()}
    return {low: w for low, (w, n) in best.items() if w != low and n > 4 and n > 0.8 * seen[low].total()} | {
        "i": "I"
    }


# --- tokenizer and batches ----------------------------------------------------


def learn_tokenizer(texts: list[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # GPT-2's own pattern
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([END])  # the last id, as in GPT-2
    return tokenizer


def encode(tokenizer: Tokenizer, documents: list[str]) -> list[np.ndarray]:
    """[start] tokens [end] of each document, both ends GPT-2's end-of-text."""
    end = tokenizer.token_to_id(END)
    return [np.array([end, *e.ids, end], dtype=np.int64) for e in tokenizer.encode_batch(documents)]


def rows(documents: list[np.ndarray], context: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless rows of context + 1 tokens over documents in a new order each pass."""
    while True:
        order = generator.permutation(len(documents))
        stream = np.concatenate([documents[i] for i in order])
        stream = stream[int(generator.integers(context)) :]
        n = (len(stream) - 1) // context
        for i in generator.permutation(n):
            yield stream[i * context : i * context + context + 1]


# --- training -----------------------------------------------------------------


def build(args: argparse.Namespace, end: int) -> GPT2LMHeadModel:
    torch.manual_seed(args.seed)
    config = GPT2Config(
        vocab_size=args.vocab,
        n_positions=args.context,
        n_embd=args.width,
        n_layer=args.layers,
        n_head=args.width // 64,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    model = GPT2LMHeadModel(config)
    # The fused kernel of the same function: gelu_new as written in transformers is six times slower.
    for block in model.transformer.h:
        block.mlp.act = torch.nn.GELU(approximate="tanh")
    return model


def optimizers(model: GPT2LMHeadModel, args: argparse.Namespace) -> list[torch.optim.Optimizer]:
    inside = [p for n, p in model.named_parameters() if p.ndim == 2 and ".h." in n]
    known = {id(p) for p in inside}
    others = [p for p in model.parameters() if id(p) not in known]
    return [
        Muon(inside, lr=args.muon_rate),
        torch.optim.AdamW(others, lr=args.adam_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by five Newton-Schulz steps (Jordan et al. 2024), in float32.

    torch.optim.Muon works in bfloat16, which a CPU without such instructions
    runs three times slower; matrices of one shape go through together here.
    """

    def __init__(self, params: list[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for p in group["params"]:
                by_shape.setdefault(p.shape, []).append(p)
            for same in by_shape.values():
                self._step_same(same, group["lr"], group["momentum"])

    def _step_same(self, same: list[torch.nn.Parameter], lr: float, momentum: float) -> None:
        updates = []
        for p in same:
            m = self.state[p].setdefault("momentum", torch.zeros_like(p))
            m.lerp_(p.grad, 1 - momentum)
            updates.append(p.grad.lerp(m, momentum))  # Nesterov
        u = torch.stack(updates)
        tall = u.shape[1] > u.shape[2]
        u = u.mT if tall else u
        u = u / (u.norm(dim=(1, 2), keepdim=True) + 1e-7)
        for _ in range(5):
            g = u @ u.mT
            u = 3.4445 * u + (-4.7750 * g + 2.0315 * g @ g) @ u
        u = (u.mT if tall else u) * max(1.0, same[0].shape[0] / same[0].shape[1]) ** 0.5
        for p, update in zip(same, u, strict=True):
            p.add_(update, alpha=-lr)


def rate_at(progress: float) -> float:
    """Share of the peak rate: a short warm-up, flat, then down to zero over the last 60 %."""
    return min(1.0, progress / 0.01 + 0.02, max(0.0, (1 - progress) / 0.6))


def train(
    model: GPT2LMHeadModel, data: list[np.ndarray], held_out: list[np.ndarray], args: argparse.Namespace
) -> int:
    """Train to the end of the token or time budget. Returns the tokens seen."""
    step = (
        torch.compile(lambda x, y: token_loss(model, x, y))
        if args.compile
        else lambda x, y: token_loss(model, x, y)
    )
    opts, source = optimizers(model, args), rows(data, args.context, np.random.default_rng(args.seed))
    begin, seen, count, mean = time.monotonic(), 0, 0, 0.0
    while True:
        clock = (time.monotonic() - begin) / 60
        progress = clock / args.minutes if args.minutes else seen / args.tokens
        if progress >= 1:
            return seen
        for opt, peak in zip(opts, (args.muon_rate, args.adam_rate), strict=True):
            opt.param_groups[0]["lr"] = peak * rate_at(progress)
        batch = torch.from_numpy(np.stack([next(source) for _ in range(args.rows)]))
        loss = step(batch[:, :-1], batch[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        seen, count = seen + batch[:, 1:].numel(), count + 1
        now = float(loss.detach())
        mean = now if count == 1 else 0.98 * mean + 0.02 * now
        if count % args.log_every == 0:
            print(
                f"{clock:6.1f} min {seen:>10,} tokens  loss {mean:.3f}  {seen / clock / 60:,.0f} tok/s",
                flush=True,
            )
        if count % args.save_every == 0:
            print(
                f"  held out: {score(model, held_out[: args.quick], args.context)[0]:.4f} nats a token",
                flush=True,
            )
            save(model, args)


def token_loss(model: GPT2LMHeadModel, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    hidden = model.transformer(input_ids=x, use_cache=False).last_hidden_state
    return F.cross_entropy(F.linear(hidden, model.transformer.wte.weight).flatten(0, 1), y.flatten())


@torch.inference_mode()
def score(model: GPT2LMHeadModel, documents: list[np.ndarray], context: int) -> tuple[float, np.ndarray]:
    """Mean loss over held-out documents in nats a token, and the mean loss at each position."""
    total, hits = np.zeros(context), np.zeros(context)
    for doc in documents:
        for i in range(0, len(doc) - 1, context):
            piece = torch.from_numpy(doc[i : i + context + 1])[None]
            hidden = model.transformer(input_ids=piece[:, :-1], use_cache=False).last_hidden_state
            logits = F.linear(hidden, model.transformer.wte.weight)[0]
            nll = F.cross_entropy(logits, piece[0, 1:], reduction="none").double().numpy()
            total[: len(nll)] += nll
            hits[: len(nll)] += 1
    return float(total.sum() / hits.sum()), total / np.maximum(hits, 1)


def save(model: GPT2LMHeadModel, args: argparse.Namespace) -> None:
    """config.json and fp16 model.safetensors, replaced by rename."""
    args.to.mkdir(parents=True, exist_ok=True)
    config = model.config.to_diff_dict() | {"architectures": ["GPT2LMHeadModel"], "dtype": "float16"}
    config.pop("transformers_version", None)
    (args.to / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tensors = {k: v.half().contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(tensors, args.to / "model.tmp", metadata={"format": "pt"})
    (args.to / "model.tmp").replace(args.to / "model.safetensors")


def save_tokenizer(tokenizer: Tokenizer, args: argparse.Namespace) -> None:
    args.to.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(args.to / "tokenizer.json"), pretty=False)
    about = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": END,
        "eos_token": END,
        "unk_token": END,
        "add_prefix_space": False,
        "model_max_length": args.context,
    }
    (args.to / "tokenizer_config.json").write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")


# --- card ---------------------------------------------------------------------


def sample(folder: Path, count: int, length: int, top_p: float, seed: int) -> list[str]:
    """Unpicked texts at temperature 0.8, each from the start of a document, by AdapterKit itself."""
    from adapterkit import Generator

    with Generator(folder, device="cpu") as write:
        done = write.samples("", n=count, seed=seed, temperature=0.8, top_p=top_p, max_new_tokens=length)
    return [c.text for c in done]


def words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]+(?:'[a-z]+)?", text)


def share_of_known(texts: list[str], known: set[str]) -> float:
    """Share of the words that occur in the texts learned from; a last word may be cut off and is left out."""
    said = [w.lower() for t in texts for w in words(t)[:-1]]
    return round(sum(w in known for w in said) / len(said), 4)


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    raw = {name: list(read_documents(Path(path))) for name, path in (t.split("=", 1) for t in args.text)}
    case = learn_case([d for docs in raw.values() for d in docs if re.search("[A-Z]", d[:2000])])
    corpora = [Corpus(n, [c for d in docs if len(c := clean(d, case)) > 200]) for n, docs in raw.items()]
    learn = [d for c in corpora for d in c.part(False)]
    unseen = {c.name: c.part(True) for c in corpora}
    for c in corpora:
        print(
            f"{c.name}: {len(c.documents)} documents, {sum(map(len, c.documents)):,} characters", flush=True
        )
    if args.show:
        for c in corpora:
            print(f"=== {c.name}", *(d[:700] for d in c.documents[5:8]), sep="\n---\n")
        return
    if args.evaluate:
        tokenizer = Tokenizer.from_file(str(args.to / "tokenizer.json"))
    else:
        tokenizer = learn_tokenizer(learn, args.vocab)
        save_tokenizer(tokenizer, args)
    end = tokenizer.token_to_id(END)
    data, tests = encode(tokenizer, learn), {n: encode(tokenizer, d) for n, d in unseen.items()}
    print(
        f"{sum(map(len, data)):,} tokens to learn from, {sum(len(d) for t in tests.values() for d in t):,} held out"
    )
    model = build(args, end)
    print(f"{model.num_parameters():,} parameters", flush=True)
    begin, seen = time.monotonic(), 0
    if args.evaluate:
        model.load_state_dict(load_file(args.to / "model.safetensors"), strict=False)
    else:
        seen = train(model, data, [d for t in tests.values() for d in t[:2]], args)
        save(model, args)
    facts = {
        "tokens": seen,
        "seconds": round(time.monotonic() - begin),
        "parameters": model.num_parameters(),
        "documents": {c.name: len(c.documents) for c in corpora},
        "characters": {c.name: sum(map(len, c.documents)) for c in corpora},
        "unique_tokens": sum(map(len, data)),
        "arguments": {k: v for k, v in vars(args).items() if isinstance(v, int | float)},
        **evaluate(model.half().float(), tokenizer, learn, unseen, tests, args),
    }
    if args.evaluate and (args.to / "facts.json").exists():  # how it was trained is known from then
        before = json.loads((args.to / "facts.json").read_text())
        facts |= {k: before[k] for k in ("tokens", "seconds", "arguments")}
    (args.to / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps({k: v for k, v in facts.items() if k != "samples"}, indent=2))


def evaluate(model, tokenizer, learn, unseen, tests, args) -> dict[str, object]:  # type: ignore[no-untyped-def]
    """Bits a character on held-out documents, loss by position, share of real words, samples."""
    bits, nats, chars, everywhere = {}, 0.0, 0, []
    for name, docs in tests.items():
        loss, by_position = score(model, docs, args.context)
        n, c = sum(len(d) - 1 for d in docs), sum(map(len, unseen[name]))
        bits[name] = round(loss * n / c / math.log(2), 4)
        nats, chars = nats + loss * n, chars + c
        everywhere.append(by_position)
    _, at = score(model, [d for t in tests.values() for d in t if len(d) > args.context], args.context)
    known = {w.lower() for d in learn for w in words(d)}
    texts = {p: sample(args.to, 100, 120, p, seed=1) for p in (0.95, 1.0)}
    real = {p: share_of_known(t, known) for p, t in texts.items()}
    return {
        "bits_per_character": round(nats / chars / math.log(2), 4),
        "bits_by_text": bits,
        "loss_at_64_255": round(float(at[64:256].mean()), 4),
        "loss_at_256_511": round(float(at[256:512].mean()), 4),
        "real_words": real[0.95],
        "real_words_without_top_p": real[1.0],
        "samples": texts[0.95][:5],
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=12_000_000)
    parser.add_argument("--minutes", type=float, default=0.0, help="follow the clock instead of --tokens")
    parser.add_argument("--rows", type=int, default=8, help="rows of full context a step")
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--adam-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--quick", type=int, default=8)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--evaluate", action="store_true", help="score the model in --to instead of training")
    parser.add_argument("--show", action="store_true", help="print cleaned samples and stop")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""How long until something is on the screen: us, and PEFT with transformers, in turn.

    python benchmarks/start.py            5 runs of each, whole processes, medians

Three rows: ``--help``; the first token of a cold ``adapterkit generate shanty "The sea"``;
the same adapter and base loaded with PeftModel.from_pretrained and asked for one
token. Every run is a fresh process; ours and the peer's alternate. Writes
benchmarks/results/start.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 5
PEER = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from peft import PeftModel
base, adapter = sys.argv[1:]
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
ids = AutoTokenizer.from_pretrained(base)("The sea", return_tensors="pt").input_ids
with torch.inference_mode():
    print(int(model(ids).logits[0, -1].argmax()), flush=True)
"""


def first_byte(command: list[str], env: dict[str, str]) -> float:
    """Seconds from the start of a process to the first byte on its stdout."""
    begun = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=env
    ) as p:
        assert p.stdout is not None
        if not p.stdout.read(1):
            raise SystemExit(f"{' '.join(command[:4])} printed nothing")
        seconds = time.perf_counter() - begun
        p.stdout.read()
    return seconds


def peft_is_loaded(env: dict[str, str]) -> bool:
    """Whether ``generate`` pulls in peft or transformers' model zoo."""
    code = (
        "import sys; from adapterkit.cli.main import run; run(['generate', 'shanty', 'The sea', '--max-new-tokens', '2']);"
        "sys.exit(any(m in sys.modules for m in ('peft', 'transformers.models.gpt2')))"
    )
    return (
        subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, stdin=subprocess.DEVNULL
        ).returncode
        != 0
    )


def main() -> None:
    root = Path(tempfile.mkdtemp(prefix="adapterkit-bench-"))
    env = os.environ | {
        "ADAPTERKIT_REGISTRY": str(root / "adapters"),
        "ADAPTERKIT_CACHE": str(root / "cache"),
    }
    me = [sys.executable, "-m", "adapterkit"]
    print("training one small adapter ...", file=sys.stderr)
    subprocess.run(
        [*me, "train", "--recipe", "shanty", "--epochs", "1", "-q"],
        env=env,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    from adapterkit.model.base import locate

    peer = [
        sys.executable,
        "-c",
        PEER,
        str(locate("embedded").folder),
        str(root / "adapters" / "shanty" / "1"),
    ]
    ours = [*me, "generate", "shanty", "The sea", "--max-new-tokens", "8", "--seed", "1"]
    helps = [first_byte([*me, "--help"], env) for _ in range(RUNS)]
    pairs = [(first_byte(ours, env), first_byte(peer, env)) for _ in range(RUNS)]
    rows = [
        {
            "what": "adapterkit --help",
            "ours": statistics.median(helps),
            "peer": None,
            "ratio": None,
            "runs": [[h, None] for h in helps],
        },
        {
            "what": "first token, cold: generate / PEFT + transformers",
            "ours": statistics.median(o for o, _ in pairs),
            "peer": statistics.median(p for _, p in pairs),
            "ratio": statistics.median(p / o for o, p in pairs),
            "runs": [list(p) for p in pairs],
        },
    ]
    for row in rows:
        row |= {"unit": "s", "better": "lower"}
        peer_text = f"{row['peer']:6.2f} s   peer / ours {row['ratio']:.1f}x" if row["peer"] else ""
        print(f"{row['what']:<50} {row['ours']:6.2f} s   {peer_text}")
    print(f"generate imports peft or the model zoo: {'yes' if peft_is_loaded(env) else 'no'}")
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "start.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()

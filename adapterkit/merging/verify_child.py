"""What runs inside the child process: a written folder, opened by transformers as anybody would.

It is told on stdin, as JSON, what to open and where the reference lies, and
answers on stdout, as the last line. Whatever a broken folder does to
transformers ends this process and no other. Nothing of AdapterKit is needed here.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    asked = json.load(sys.stdin)
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    folder = asked["folder"]
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    answer = _compare(model.eval(), asked) | {
        "texts": [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in asked["texts"]],
        "tools": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


def _compare(model: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """The largest difference of a logit, and how often the likeliest token is another one.

    A position counts for the latter where the reference's two likeliest tokens
    are further apart than the difference that is allowed.
    """
    import numpy as np
    import torch

    words, at = asked["words"], 0
    largest, counted, others = [], 0, 0
    for row in asked["rows"]:
        raw = np.fromfile(asked["reference"], np.float32, len(row) * words, offset=4 * at)
        at += raw.size
        ours = torch.from_numpy(raw).view(len(row), words)
        with torch.inference_mode():
            theirs = model(input_ids=torch.tensor([row]), use_cache=False).logits[0].float()
        if theirs.shape != ours.shape:
            sys.exit(f"it gives logits of the shape {tuple(theirs.shape)}, not {tuple(ours.shape)}")
        largest.append((ours - theirs).abs().max())  # nan where either has one
        top = ours.topk(2).values
        clear = top[:, 0] - top[:, 1] > asked["margin"]
        counted += int(clear.sum())
        others += int((ours.argmax(-1) != theirs.argmax(-1))[clear].sum())
    return {"difference": float(torch.stack(largest).max()), "counted": counted, "others": others}


if __name__ == "__main__":
    main()

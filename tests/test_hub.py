"""The local Hub serves the real loading code, and what was loaded from it stays usable offline."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hub import LocalHub, make_gpt2, make_wikitext

LOAD = """
import json, torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("gpt2")
model = AutoModelForCausalLM.from_pretrained("gpt2")
rows = load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1", split="train[:50%]")
ids = tokenizer(" The river , naïve\\n<|endoftext|>")["input_ids"]
with torch.no_grad():
    logits = model(torch.tensor([ids])).logits
print(json.dumps({
    "tokenizer": type(tokenizer).__name__,
    "text": tokenizer.decode(ids),
    "ends": [ids[-1], tokenizer.eos_token_id, model.config.bos_token_id, model.config.eos_token_id],
    "vocabulary": [len(tokenizer), model.config.vocab_size],
    "logits": [*logits.shape, logits.sum().item()],
    "rows": rows["text"][:],
}))
"""
STREAM = """
import json
from datasets import load_dataset

rows = load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1", streaming=True)
print(json.dumps({split: [row["text"] for row in rows[split]] for split in rows}))
"""
INFO = """
import json
from huggingface_hub import HfApi

def name_of_error(repo, revision):
    try:
        HfApi().hf_hub_download(repo, "absent.txt", revision=revision)
    except Exception as error:
        return type(error).__name__

info = HfApi().model_info("gpt2")
folder, = HfApi().get_paths_info("gpt2", ["sub"])
asked = [("org/absent", None), ("gpt2", "absent"), ("gpt2", info.sha)]
print(json.dumps({
    "sha": info.sha,
    "id": info.id,
    "files": [file.rfilename for file in info.siblings],
    "tree": [entry.path for entry in HfApi().list_repo_tree("gpt2")],
    "folder": type(folder).__name__,
    "errors": [name_of_error(*one) for one in asked],
}))
"""
TITLE = re.compile(r" = \w[^=]* = \n")


def _run(code: str, hub: LocalHub, home: Path, **settings: str) -> Any:
    """The JSON that ``code`` prints in a child process that knows no other Hub."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "no_proxy": "127.0.0.1"}
    env |= dict.fromkeys(("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_XET"), "1") | settings
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_was_loaded_loads_again_offline(tmp_path: Path) -> None:
    make_gpt2(tmp_path)
    make_wikitext(tmp_path)
    with LocalHub(tmp_path) as hub:
        online = _run(LOAD, hub, tmp_path / "home")
    assert online["tokenizer"] == "GPT2Tokenizer"
    assert online["text"] == " The river , naïve\n<|endoftext|>"
    assert len(set(online["ends"])) == 1
    assert online["vocabulary"] == [online["ends"][0] + 1] * 2
    assert online["rows"][:2] == ["", " = History of Brindle = \n"]
    assert "GET /datasets/Salesforce/wikitext/resolve/main/README.md" in hub.requests
    offline = _run(LOAD, hub, tmp_path / "home", HF_HUB_OFFLINE="1")
    # threads may add a sum in another order; the rest is equal to the letter
    assert offline.pop("logits") == pytest.approx(online.pop("logits"), rel=1e-4)
    assert offline == online


def test_a_dataset_streams(tmp_path: Path) -> None:
    make_wikitext(tmp_path)
    with LocalHub(tmp_path) as hub:
        splits = _run(STREAM, hub, tmp_path / "home")
    articles = {split: sum(bool(TITLE.fullmatch(row)) for row in rows) for split, rows in splits.items()}
    assert articles == {"train": 60, "validation": 5, "test": 5}


def test_a_changed_file_makes_a_new_commit(tmp_path: Path) -> None:
    file = tmp_path / "models/openai-community/gpt2/sub/config.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    with LocalHub(tmp_path) as hub:
        first = _run(INFO, hub, tmp_path / "home")
        file.write_text("[]")
        second = _run(INFO, hub, tmp_path / "home")
    assert first.pop("sha") != second["sha"]
    assert re.fullmatch("[0-9a-f]{40}", second.pop("sha"))
    assert first == second
    assert second == {
        "id": "openai-community/gpt2",
        "files": ["sub/config.json"],
        "tree": ["sub"],
        "folder": "RepoFolder",
        "errors": ["RepositoryNotFoundError", "RevisionNotFoundError", "RemoteEntryNotFoundError"],
    }

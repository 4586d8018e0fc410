"""A Hugging Face Hub on 127.0.0.1, and the small GPT-2 and WikiText that tests serve from it.

A child process with ``HF_ENDPOINT`` set to ``LocalHub(root).url`` loads ``root/models/<org>/<name>`` and
``root/datasets/<org>/<name>`` as from the Hub. A repository has one commit, a hash of what it holds. Whoever
has ``TOKEN`` may also create a model's repository and commit to it: small files with the commit, weights before
it, as large files are.
"""

import base64
import hashlib
import json
import random
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_localhubtoken"
ALIASES = {"gpt2": "openai-community/gpt2", "wikitext": "Salesforce/wikitext"}
END = "<|endoftext|>"
_ID = rf"({'|'.join(ALIASES)}|\w[\w.-]*/\w[\w.-]*)"
_ACTION = r"(revision|tree|paths-info|resolve)/([^/]+)(?:/(.+))?"
_ROUTE = re.compile(rf"/(?:api/)?(?:(models|datasets)/)?{_ID}(?:/{_ACTION})?")
_PLACES = ["Ashford", "Brindle", "Calder", "Dunmore", "Elmswell", "Farrow", "Glenrock", "Harwick", "Kelstone"]
_TOPICS = ["Architecture", "Climate", "Economy", "Geography", "History", "Politics", "Railways", "Wildlife"]
_TEXT = """
The river rises in the northern hills . Most of its water is snow melt . It reaches the sea after 94 miles .
A stone bridge was completed in 1871 . It replaced an older ferry . Two local engineers had designed it .
The first settlers grew barley and kept sheep . By 1900 the town had 3 @,@ 200 people . Most were miners .
One critic called it " a quiet and patient work " . The recording sold poorly . Listeners abroad liked it .
Grey herons nest here from March to June . Their numbers doubled after 1987 . The marsh is now protected .
Summers are short and mild . Winters bring long periods of fog . Rain falls on nearly half of all days .
The castle was besieged three times . Its garrison ran out of bread . The walls were sold for their stone .
The ship carried coal and timber . Its crew was twenty @-@ one . It was sold for scrap six years later .
"""
_SENTENCES = re.findall(r"\S.*? \.(?=\s)", _TEXT)


class LocalHub(ThreadingHTTPServer):
    """Serves ``root`` from its making until ``stop`` or the end of its ``with`` block."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root, self.url = root, f"http://127.0.0.1:{self.server_port}"
        self.requests: list[str] = []  # such as "GET /api/models/gpt2", in the order answered
        self.private: set[str] = set()  # repositories that not everyone may see
        self.commits: list[dict[str, Any]] = []  # summary and description of each commit
        self.large: dict[str, bytes] = {}  # uploaded files by sha256
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    __exit__ = stop


class _Handler(BaseHTTPRequestHandler):
    server: LocalHub

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        form = parse_qs(self._body().decode("utf-8", "replace"))
        parts = match.groups() if (match := _ROUTE.fullmatch(url.path)) else [""] * 5
        kind, repo, action, revision, name = (unquote(part or "") for part in parts)
        folder = self.server.root / (kind or "models") / ALIASES.get(repo, repo)
        entries = {path.relative_to(folder).as_posix(): _entry(path) for path in sorted(folder.rglob("*"))}
        sha = hashlib.sha1(json.dumps(entries).encode()).hexdigest()
        is_hidden = repo in self.server.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        if not repo or not entries or is_hidden:
            return self._send(404, {"X-Error-Code": "RepoNotFound"})
        if revision not in {"", "main", sha}:
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        if name not in {"", *entries}:
            return self._send(404, {"X-Error-Code": "EntryNotFound"})
        if action == "resolve":
            headers = {"ETag": f'"{entries[name]["oid"]}"', "X-Repo-Commit": sha}
            return self._send(200, headers, (folder / name).read_bytes())
        files = [{"rfilename": path} for path, entry in entries.items() if entry["type"] == "file"]
        answer: Any = {"id": ALIASES.get(repo, repo), "sha": sha, "siblings": files}
        answer["private"] = repo in self.server.private
        if action == "paths-info":
            answer = [{"path": path, **entries[path]} for path in form.get("paths", []) if path in entries]
        elif action == "tree":
            below = re.escape(name and f"{name}/") + (".+" if "recursive=true" in url.query else "[^/]+")
            answer = [{"path": path, **entries[path]} for path in entries if re.fullmatch(below, path)]
        return self._send(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        for pattern, answer in _WRITING.items():
            if match := re.fullmatch(pattern, path):
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    self._send(401, {"X-Error-Message": "Invalid username or password."})
                    return
                answer(self, self._body(), *match.groups())
                return
        self.do_GET()

    def do_PUT(self) -> None:
        data = self._body()
        self.server.large[hashlib.sha256(data).hexdigest()] = data
        self._send(200, {})

    def _create(self, body: bytes) -> None:
        told = json.loads(body)
        repo = "/".join(filter(None, (told.get("organization"), told["name"])))
        folder = self.server.root / "models" / repo
        if folder.exists():
            return self._json({"error": "exists", "url": f"{self.server.url}/{repo}"}, 409)
        folder.mkdir(parents=True)
        (folder / ".gitattributes").write_text("")  # as the Hub does; a repository is never empty
        if told.get("private") or told.get("visibility") == "private":
            self.server.private.add(repo)
        return self._json({"url": f"{self.server.url}/{repo}", "name": repo})

    def _preupload(self, body: bytes, repo: str) -> None:
        modes = {True: "lfs", False: "regular"}
        named = [f["path"] for f in json.loads(body)["files"]]
        told = [
            {"path": p, "uploadMode": modes[p.endswith(".safetensors")], "shouldIgnore": False} for p in named
        ]
        self._json({"files": told})

    def _batch(self, body: bytes, repo: str) -> None:
        objects = json.loads(body)["objects"]
        href = f"{self.server.url}/large/"
        told = [{**o, "actions": {"upload": {"href": href + o["oid"]}}} for o in objects]
        self._json({"transfer": "basic", "objects": told})

    def _commit(self, body: bytes, repo: str) -> None:
        folder = self.server.root / "models" / repo
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.server.commits.append(value)
            elif line["key"] == "file":
                (folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
            elif line["key"] == "deletedFile":
                (folder / value["path"]).unlink()
            else:
                (folder / value["path"]).write_bytes(self.server.large[value["oid"]])
        url = f"{self.server.url}/{repo}/commit/{'0' * 40}"
        self._json({"success": True, "commitUrl": url, "commitOid": "0" * 40})

    def _validate(self, body: bytes) -> None:
        self._json({"errors": [], "warnings": []})

    def _json(self, answer: Any, status: int = 200) -> None:
        self._send(status, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _body(self) -> bytes:
        """What was sent; in pieces of told length when the sender did not know all of it."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _send(self, status: int, headers: dict[str, str], data: bytes = b"") -> None:
        if status == 200 and (part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            first, last = int(part[1]), min(int(part[2] or len(data)), len(data) - 1)
            status, headers = 206, {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}
            data = data[first : last + 1]
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else data)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self.server.requests.append(f"{self.command} {unquote(urlsplit(self.path).path)}")


_REPO = r"(\w[\w.-]*/\w[\w.-]*)"
_WRITING: dict[str, Any] = {
    "/api/repos/create": _Handler._create,
    "/api/validate-yaml": _Handler._validate,
    f"/api/models/{_REPO}/preupload/main": _Handler._preupload,
    rf"/{_REPO}\.git/info/lfs/objects/batch": _Handler._batch,
    f"/api/models/{_REPO}/commit/main": _Handler._commit,
}


def _entry(path: Path) -> dict[str, Any]:
    kind, data = ("file", path.read_bytes()) if path.is_file() else ("directory", b"")
    return {"type": kind, "oid": hashlib.sha1(data).hexdigest(), "size": len(data)}


def make_gpt2(root: Path) -> Path:
    """A GPT-2 of random weights with a byte-level tokenizer, as ``gpt2`` on the Hub."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = ByteLevelBPETokenizer(add_prefix_space=False)
    tokenizer.train_from_iterator(_SENTENCES, vocab_size=511, min_frequency=1, show_progress=False)
    end = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens([END])
    state = json.loads(tokenizer.to_str())
    state["model"]["vocab"][END] = end
    sizes = {"vocab_size": end + 1, "n_layer": 2, "n_embd": 64, "n_head": 2, "n_positions": 128}
    folder = root / "models" / ALIASES["gpt2"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config(bos_token_id=end, eos_token_id=end, **sizes)).save_pretrained(folder)
    settings = {"tokenizer_class": "GPT2Tokenizer", "bos_token": END, "eos_token": END, "unk_token": END}
    (folder / "tokenizer.json").write_text(json.dumps(state))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def make_wikitext(root: Path) -> Path:
    """Short articles in the line layout of WikiText, as ``wikitext`` on the Hub."""
    from pyarrow import parquet, table  # type: ignore[import-untyped]

    rng, name = random.Random(0), "wikitext-2-raw-v1"
    folder = root / "datasets" / ALIASES["wikitext"]
    (folder / name).mkdir(parents=True)
    titles = rng.sample([f"{topic} of {place}" for topic in _TOPICS for place in _PLACES], 70)
    card = f"---\nconfigs:\n- config_name: {name}\n  data_files:\n"
    for split, articles in {"train": titles[10:], "validation": titles[:5], "test": titles[5:10]}.items():
        lines = [line for title in articles for line in _article(rng, title)]
        parquet.write_table(table({"text": lines}), folder / name / f"{split}-00000-of-00001.parquet")
        card += f"  - split: {split}\n    path: {name}/{split}-*\n"
    (folder / "README.md").write_text(f"{card}---\n")
    return folder


def _article(rng: random.Random, title: str) -> list[str]:
    lines = []
    for level, heading in zip((1, 2, 3, 2), [title, *rng.sample(_TOPICS, 3)], strict=True):
        paragraphs = [f" {' '.join(rng.sample(_SENTENCES, 5))} \n" for _ in range(rng.randint(1, 2))]
        lines += ["", f" {'= ' * level}{heading} {'= ' * level}\n", "", *paragraphs]
    return lines

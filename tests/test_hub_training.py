"""The recipe's Hub path: an id becomes a registered version, again from the cache without a Hub, and else one error."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from adapterkit import network
from tests.hub import LocalHub, make_gpt2, make_wikitext

TRAIN = ["train", "wikitext", "--lora-r", "4", "--epochs", "1", "--max-length", "64", "--device", "cpu"]
TRAIN += ["--set", "train.tokens_per_step=1024"]
COMMIT = re.compile("[0-9a-f]{40}")
WAYS_OUT = ["HF_ENDPOINT", "HF_HOME", "--base FOLDER", "--base embedded"]
NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens there
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``adapterkit ARGS`` in a child process that knows one Hub and places of its own."""

    def call(
        *args: str, endpoint: str, home: str = "home", **settings: str
    ) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / home), "no_proxy": "127.0.0.1"}
        env |= {"ADAPTERKIT_REGISTRY": str(tmp_path / "registry"), "OMP_NUM_THREADS": "1"} | settings
        words = [sys.executable, "-m", "adapterkit", *args]
        return subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)

    return call


def _is_ours(line: str) -> bool:
    """A note, a test of the curve, or a sample."""
    return line.startswith(("· ", "  pass ", '          "'))


def _check_trained(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The new version's manifest, after the run's own screen was found to be all there was to see."""
    assert done.returncode == 0, done.stderr
    # Samples of random weights hold any character, line breaks of other alphabets too.
    strange = [line for line in done.stderr.split("\n") if line and not _is_ours(line)]
    assert strange == []
    saved = re.search(r"^saved +(\S+)", done.stdout, re.MULTILINE)
    assert saved, done.stdout
    manifest: dict[str, Any] = json.loads((Path(saved[1]) / "manifest.json").read_text())
    return manifest


@pytest.mark.slow
def test_a_hub_id_becomes_a_version_and_again_without_the_hub(tmp_path: Path, run: Run) -> None:
    make_gpt2(tmp_path)
    make_wikitext(tmp_path)
    with LocalHub(tmp_path) as hub:
        online = _check_trained(run(*TRAIN, endpoint=hub.url))
    assert online["base"]["id"] == "gpt2"
    assert COMMIT.fullmatch(online["base"]["revision"])
    assert f"GET /api/models/openai-community/gpt2/tree/{online['base']['revision']}" in hub.requests
    assert COMMIT.fullmatch(online["data"]["revision"])
    assert any(online["data"]["revision"] in request for request in hub.requests)

    stopped = _check_trained(run(*TRAIN, "--fresh", endpoint=hub.url))
    offline = _check_trained(run(*TRAIN, "--fresh", endpoint=hub.url, HF_HUB_OFFLINE="1"))
    for again in (stopped, offline):
        assert [again[key] for key in ("base", "data", "made_from")] == [
            online[key] for key in ("base", "data", "made_from")
        ]
    same = run(*TRAIN, endpoint=hub.url)
    assert "comes from the cache, commit " + online["data"]["revision"][:8] in same.stderr
    assert "Same text, same recipe" in same.stderr

    written = run("generate", "wikitext", "The river", "--seed", "1", endpoint=hub.url)
    assert written.returncode == 0, written.stderr
    assert len(written.stdout) > 10
    assert all(_is_ours(line) for line in written.stderr.splitlines())


@pytest.mark.slow
def test_the_base_may_be_a_folder_and_the_text_a_hub_id(tmp_path: Path, run: Run) -> None:
    make_wikitext(tmp_path)
    folder = make_gpt2(tmp_path / "elsewhere")
    with LocalHub(tmp_path) as hub:
        manifest = _check_trained(run(*TRAIN, "--base", str(folder), endpoint=hub.url))
    assert (manifest["base"]["id"], manifest["base"]["revision"]) == ("gpt2", None)
    assert COMMIT.fullmatch(manifest["data"]["revision"])
    assert not any("models" in request for request in hub.requests)


# --- a Hub that does not answer -----------------------------------------------


@contextmanager
def _mute() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def _swallowing() -> Iterator[str]:
    """An address whose connects hang, as where packets are dropped: its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for each in waiting:
            each.close()


@contextmanager
def _answering(status: int, body: bytes, kind: str) -> Iterator[str]:
    """A host that gives one answer to everything."""

    class Same(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Same) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def _refusing() -> Iterator[str]:
    yield NOWHERE


HOSTS = {
    "did not answer within 8 s": [_mute, _swallowing],
    "can't be reached ([Errno 111] Connection refused)": [_refusing],
    "answered 503": [lambda: _answering(503, b"", "text/plain")],
    "did not answer as a Hub does": [lambda: _answering(200, b"<html>Log in</html>", "text/html")],
}


@pytest.mark.slow
@pytest.mark.parametrize(("why", "host"), [(why, host) for why, hosts in HOSTS.items() for host in hosts])
def test_no_hub_and_no_cache_is_one_error_with_three_ways_out(
    run: Run, why: str, host: Callable[[], Any]
) -> None:
    with host() as endpoint:
        done = run(*TRAIN, endpoint=endpoint)
    assert done.returncode == 4
    assert done.stdout == ""
    note, error, hint = done.stderr.splitlines()
    assert note.startswith("· Recipe wikitext")
    assert error.startswith("error: the base 'gpt2' is not on this computer, and 127.0.0.1:")
    assert why in error
    assert all(way in hint for way in WAYS_OUT)


def test_offline_by_choice_with_an_empty_cache_says_so(
    cli: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    code, out, err = cli(*TRAIN)  # HF_HUB_OFFLINE is set for all tests
    assert (code, out) == (4, "")
    assert "the base 'gpt2' is not on this computer, and HF_HUB_OFFLINE is set." in err
    assert all(way in err for way in WAYS_OUT)


@pytest.mark.slow
def test_without_a_hub_nothing_takes_the_place_of_the_text(tmp_path: Path, run: Run) -> None:
    done = run(*TRAIN, "--base", str(make_gpt2(tmp_path)), endpoint=NOWHERE)
    assert done.returncode == 4
    assert "error: the dataset 'Salesforce/wikitext' with subset 'wikitext-2-raw-v1' is not on" in done.stderr
    assert len(done.stderr.splitlines()) == 3


ASK = """
import sys, time
from adapterkit import network
import huggingface_hub.hf_api

begun = time.monotonic()
try:
    print(network.commit("openai-community/gpt2", "model"))
except network.Silent:
    print(time.monotonic() - begun)
"""


@pytest.mark.slow
@pytest.mark.parametrize("host", [_mute, _swallowing])
def test_a_question_ends_within_ten_seconds_and_so_does_its_process(host: Callable[[], Any]) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with host() as endpoint:
        ask = [sys.executable, "-c", ASK]
        done = subprocess.run(
            ask, env=env | {"HF_ENDPOINT": endpoint}, capture_output=True, text=True, timeout=60
        )
    assert done.stderr == ""
    assert network.DEADLINE <= float(done.stdout) < 10


READ = """
import json, sys
from adapterkit.data.hub import read_hub
from adapterkit.errors import AdapterKitError
from adapterkit.recipe.schema import DataSpec

for asked in json.loads(sys.argv[1]):
    try:
        rows, revision, said = read_hub("Salesforce/wikitext", DataSpec(**asked))
        print(json.dumps([len(rows), revision, said]))
    except AdapterKitError as error:
        print(json.dumps([type(error).__name__, error.message]))
"""


def _read(home: Path, endpoint: str, *asked: dict[str, str]) -> list[list[Any]]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "no_proxy": "127.0.0.1"}
    words = [sys.executable, "-c", READ, json.dumps(asked)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_the_cache_serves_the_commit_that_was_asked_for_or_none(tmp_path: Path) -> None:
    folder = make_wikitext(tmp_path)
    asked = {"subset": "wikitext-2-raw-v1", "split": "train[:50%]"}
    with LocalHub(tmp_path) as hub:
        [first] = _read(tmp_path / "home", hub.url, asked | {"revision": "main"})
        (folder / "NEW.md").write_text("another commit")
        time.sleep(0.01)
        [second] = _read(tmp_path / "home", hub.url, asked)
    assert first[0] == second[0] > 300
    assert first[1] != second[1]
    offline = _read(
        tmp_path / "home",
        NOWHERE,
        asked,  # the newest that is cached, which is said
        asked | {"revision": first[1]},  # a pinned commit needs no Hub, so nothing is said
        asked | {"revision": "main"},  # as the Hub last told it when it was asked for by name
        asked | {"revision": "f" * 40},
        asked | {"split": "nowhere"},
    )
    assert offline[0][1] == second[1]
    assert f"comes from the cache, commit {second[1][:8]}, as 127.0.0.1:9 can't be" in offline[0][2][0]
    assert offline[1] == [first[0], first[1], []]
    assert offline[2][1] == first[1]
    assert offline[3][0] == "Unreachable"
    assert offline[4][0] == "DataError"
    assert "Unknown split" in offline[4][1]


@pytest.mark.slow
def test_what_the_hub_does_not_have_is_no_network_error(tmp_path: Path, run: Run) -> None:
    make_gpt2(tmp_path)
    make_wikitext(tmp_path)
    with LocalHub(tmp_path) as hub:
        absent = run(*TRAIN, "--base", "org/absent", endpoint=hub.url)
        [subset, split] = _read(
            tmp_path / "home",
            hub.url,
            {"subset": "absent", "split": "train"},
            {"subset": "wikitext-2-raw-v1", "split": "absent"},
        )
    assert absent.returncode == 1
    assert "error: the Hub has no model 'org/absent'" in absent.stderr
    assert subset[0] == split[0] == "DataError"
    assert "Available: ['wikitext-2-raw-v1']" in subset[1]
    assert "Should be one of ['train', 'validation', 'test']" in split[1]


@pytest.mark.slow
def test_a_broken_off_download_of_the_base_is_completed(tmp_path: Path) -> None:
    make_gpt2(tmp_path)
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_HOME": str(tmp_path / "home"), "no_proxy": "127.0.0.1"}
    fetch = [sys.executable, "-c", "from adapterkit.model.hub import fetch; print(fetch('gpt2')[0])"]
    with LocalHub(tmp_path) as hub:
        env["HF_ENDPOINT"] = hub.url
        folder = Path(subprocess.check_output(fetch, env=env, text=True).strip())
        (folder / "tokenizer.json").unlink()
        subprocess.run(fetch, env=env, check=True, capture_output=True)
    assert (folder / "tokenizer.json").is_file()

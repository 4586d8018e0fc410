"""One quick question to the Hub before any library asks it at length.

Stock calls retry for 24 to 50 seconds when nothing answers. This asks once,
with a deadline that also holds when an address swallows packets or a name
server hangs.
"""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request

DEADLINE = 8.0  # seconds in all


def endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def answers(path: str = "/api/models/openai-community/gpt2") -> bool:
    """Whether the Hub answers anything at all within the deadline; a 404 or 401 is an answer."""
    if is_offline():
        return False
    answered = threading.Event()
    done = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(endpoint() + path, timeout=DEADLINE):
                answered.set()
        except urllib.error.HTTPError:
            answered.set()
        except (OSError, ValueError):
            pass
        done.set()

    threading.Thread(target=ask, daemon=True).start()
    done.wait(DEADLINE)
    return answered.is_set()

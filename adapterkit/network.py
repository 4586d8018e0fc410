"""One quick question to the Hub before any library asks it at length.

Stock calls retry for 24 to 50 seconds when nothing answers. This asks once for
a repository's commit, through huggingface_hub's own client (its proxies,
certificates and token), with a deadline that also holds when an address
swallows packets or a name server hangs.
"""

from __future__ import annotations

import os
import queue
import threading
from contextlib import suppress
from typing import Literal
from urllib.parse import urlsplit

DEADLINE = 8.0  # seconds in all
# Statuses that say nothing about the repository: a proxy, a limit, a Hub that is down.
PASSING = (407, 408, 429)


class Silent(Exception):
    """The Hub gave no answer; the text says why, as a clause."""


class Refused(Exception):
    """The Hub answered that it has no such thing, or not for this user."""


def endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def host() -> str:
    """The Hub's name as messages show it, without a user or password."""
    return urlsplit(endpoint()).netloc.rpartition("@")[2] or endpoint()


def commit(repo: str, kind: Literal["model", "dataset"], revision: str | None = None) -> str:
    """The commit that a Hub repository's revision is now.

    Raises:
        Silent: no answer within the deadline, or none that comes from a Hub.
        Refused: no such repository or revision, or no right to read it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        raise Silent("HF_HUB_OFFLINE is set")
    answers: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            info = HfApi().repo_info(repo, repo_type=kind, revision=revision, timeout=2 * DEADLINE)
            answers.put(str(info.sha))
        except Exception as e:  # judged by the caller's thread; a lost one would cost the whole deadline
            answers.put(e)
            return
        if revision is not None:
            with suppress(Exception):  # so that a branch or tag means the same commit offline
                HfApi().resolve_revision(repo, repo_type=kind, revision=revision)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=DEADLINE)
    except queue.Empty:
        raise Silent(f"{host()} did not answer within {DEADLINE:.0f} s") from None
    if isinstance(answer, str):
        return answer
    raise judge(answer) from answer


def judge(error: Exception) -> Silent | Refused:
    """What an error of huggingface_hub means."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    told = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, HFValidationError):
        return Refused(told)
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        is_about_repo = 400 <= status < 500 and status not in PASSING
        return Refused(told) if is_about_repo else Silent(f"{host()} answered {status}")
    if isinstance(error, ValueError | KeyError | TypeError | AttributeError):
        return Silent(f"{host()} did not answer as a Hub does (a login page?)")
    return Silent(f"{host()} can't be reached ({told})")

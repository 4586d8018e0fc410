"""The same as an ordinary user, whom modes and owners do stop; root becomes one for it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.registry import crash, ordinary
from tests.registry.operations import OPERATIONS

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)
USER = 65534
SWEPT = ("publish", "alias-moved", "delete-force", "gc")


@pytest.fixture(scope="module")
def swept() -> dict[tuple[str, str], dict[str, Any]]:
    found = crash.run("python", "kill,ENOSPC", ",".join(SWEPT), str(USER))
    return {(f["operation"], f["answer"]): f for f in found}


@pytest.mark.parametrize("answer", ["kill", "ENOSPC"])
@pytest.mark.parametrize("operation", SWEPT)
def test_an_interrupted_operation_of_an_ordinary_user_tears_nothing(
    swept: dict[tuple[str, str], dict[str, Any]], operation: str, answer: str
) -> None:
    assert swept[operation, answer]["wrong"] == []
    assert swept[operation, answer]["points"] >= 5


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_whatever_a_disk_answers_an_ordinary_user_tears_nothing(operation: str) -> None:
    found = crash.run("python", "kill,torn,ENOSPC,EIO,EROFS", operation, str(USER))
    assert {f["answer"]: f["wrong"] for f in found if f["wrong"]} == {}


def test_a_registry_that_may_only_be_read_is_read_and_says_so_to_each_writer() -> None:
    found = ordinary.run("read-only", USER)
    assert found["ends"] == {o: "not-writable" for o in OPERATIONS if o != "publish-first"}
    assert (found["is_same"], found["problems"]) == (True, 0)


def test_a_name_can_be_removed_with_rm_and_published_again() -> None:
    found = ordinary.run("removing", USER)
    assert found["rm"] == [0, ""]
    assert "noir" not in found["left"]
    assert found["again"] == "noir@1"


def test_an_ordinary_user_does_without_fsync_and_chmod() -> None:
    assert ordinary.run("without", USER) == ["rouge@1", "rouge@2", "noir@1"]

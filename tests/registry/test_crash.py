"""Killed, or told that the disk is full or broken, at every call that changes something: nothing is torn or lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterkit.registry.store import Registry
from tests.registry import crash, traced
from tests.registry.operations import OPERATIONS, picture, put

ISSUE = (
    "publish",
    "alias-moved",
    "delete-force",
    "gc",
    "import",
)  # the ones whose every answer is in the fast tests
FEWEST = {
    "publish": 25,
    "import": 25,
    "gc": 15,
    "alias-moved": 8,
    "delete-force": 8,
}  # calls there are at least


def _by_operation(found: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(f["operation"], f["answer"]): f for f in found}


@pytest.fixture(scope="module")
def killed() -> dict[tuple[str, str], dict[str, Any]]:
    quick = ",".join(o for o in OPERATIONS if o != "publish-whole")
    return _by_operation(crash.run("python", "kill", quick))


@pytest.fixture(scope="module")
def failed() -> dict[tuple[str, str], dict[str, Any]]:
    return _by_operation(crash.run("python", "torn,ENOSPC,EIO", ",".join(ISSUE)))


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o != "publish-whole"])
def test_a_kill_at_any_call_tears_nothing_and_the_next_operation_works(
    killed: dict[tuple[str, str], dict[str, Any]], operation: str
) -> None:
    found = killed[operation, "kill"]
    assert found["wrong"] == []
    assert found["points"] >= FEWEST.get(operation, 3)


@pytest.mark.parametrize("answer", ["torn", "ENOSPC", "EIO"])
@pytest.mark.parametrize("operation", ISSUE)
def test_a_disk_that_fails_at_any_call_is_told_in_one_error(
    failed: dict[tuple[str, str], dict[str, Any]], operation: str, answer: str
) -> None:
    found = failed[operation, answer]
    assert found["wrong"] == []
    assert found["points"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_whatever_a_disk_answers_at_any_call_tears_nothing(operation: str) -> None:
    found = crash.run("python", "kill,torn,ENOSPC,EIO,EROFS,EDQUOT,ENOSPC+,EIO+", operation)
    assert {f["answer"]: f["wrong"] for f in found if f["wrong"]} == {}


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_system_calls_that_are_killed_or_fail_tear_nothing(operation: str) -> None:
    if why := traced.missing():
        pytest.skip(why)
    found = crash.run("strace", "kill,ENOSPC,EIO", operation)
    assert {f["answer"]: f["wrong"] for f in found if f["wrong"]} == {}
    assert found[0]["points"] >= FEWEST.get(operation, 3)


def _cut_manifest(root: Path) -> None:
    path = root / "noir" / "1" / "manifest.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-9])


def _cut_weights(root: Path) -> None:
    path = root / "noir" / "1" / "adapter_model.safetensors"
    path.chmod(0o644)
    path.write_bytes(b"")


def _leave_staging(root: Path) -> None:
    (root / ".staging" / "new").write_bytes(b"")


@pytest.mark.parametrize("harm", [_cut_manifest, _cut_weights, _leave_staging])
def test_the_check_sees_what_is_wrong(registry: Registry, harm: Any) -> None:
    put(registry, "noir", 1)
    put(registry, "shanty", 1)
    before = picture(registry.path)
    crash.check(OPERATIONS["alias"], before, registry.path)  # fine until now
    harm(registry.path)
    with pytest.raises(AssertionError):
        crash.check(OPERATIONS["alias"], before, registry.path)


def test_the_check_sees_that_a_version_is_gone(registry: Registry) -> None:
    put(registry, "shanty", 1)
    before = picture(registry.path)
    registry.delete("shanty@1")
    put(registry, "shanty", 2)
    with pytest.raises(AssertionError, match="gone"):
        crash.check(OPERATIONS["alias"], before, registry.path)

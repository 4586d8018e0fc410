"""``adapterkit blend``: what it writes on the screen and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from adapterkit.registry.store import Registry
from tests.merging.adapters import brought

Cli = Callable[..., tuple[int, str, str]]
PARTS = ("8", "8-other")


def test_the_sum_is_told(cli: Cli, registry: Registry, folders: dict[str, Path], tiny_base: Path) -> None:
    brought(registry, folders, tiny_base, *PARTS)
    where = ["--registry", str(registry.path)]
    code, out, err = cli("blend", "r8=0.7,r8-other=-0.3", "--name", "c", *where)
    v = registry["c"]
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == f"blended c@1 {v.digest[:8]}   0.7 r8@1 − 0.3 r8-other@1"
    assert lines[1] == "  how     the weighted sum"
    assert lines[2] == "  rank    16, of 8 + 8"
    assert lines[3].startswith("  lost    nothing but rounding (")
    assert lines[5] == "next    adapterkit chat c"
    assert lines[6] == '        adapterkit compare r8@1 r8-other@1 c@1 "..."'
    again = cli("blend", "r8=0.7,r8-other=-0.3", "--name", "c", *where)[1].splitlines()[0]
    assert again.startswith(f"that is c@1 {v.digest[:8]} already   ")


def test_what_a_smaller_rank_loses_is_told(
    cli: Cli, registry: Registry, folders: dict[str, Path], tiny_base: Path
) -> None:
    brought(registry, folders, tiny_base, *PARTS)
    where = ["--registry", str(registry.path)]
    told = ["blend", "r8=0.7", "r8-other=0.3", "--name", "c", "--rank", "4", "--method", "ties", *where]
    lines = cli(*told)[1].splitlines()
    assert lines[1] == "  how     ties with density 0.5, as near as its rank allows"
    whole = json.loads(cli(*told, "--json")[1])
    worst = whole["residuals"][whole["worst"]]
    assert whole["existed"]
    assert len(whole["residuals"]) == 8
    assert worst == max(whole["residuals"].values()) > whole["residual"] > 0.1
    size = f"{100 * whole['residual']:.2g} %"
    assert lines[3] == f"  lost    {size} of its size, most in {whole['worst']} ({100 * worst:.2g} %)"
    assert [(p["ref"], p["weight"], p["rank"]) for p in whole["parts"]] == [
        ("r8@1", 0.7, 8),
        ("r8-other@1", 0.3, 8),
    ]
    assert (whole["rank"], whole["method"], whole["density"], whole["seed"]) == (4, "ties", 0.5, None)


def test_quiet_is_the_ref(cli: Cli, registry: Registry, folders: dict[str, Path], tiny_base: Path) -> None:
    brought(registry, folders, tiny_base, "8")
    assert cli("blend", "r8=0.5", "--name", "c", "-q", "--registry", str(registry.path)) == (0, "c@1\n", "")


def test_show_tells_where_a_blend_comes_from(
    cli: Cli, registry: Registry, folders: dict[str, Path], tiny_base: Path
) -> None:
    brought(registry, folders, tiny_base, *PARTS)
    where = ["--registry", str(registry.path)]
    cli("blend", "r8=0.7,r8-other=0.3", "--name", "c", *where)
    code, out, _ = cli("show", "c", *where)
    assert code == 0
    assert f"r8@1 {registry['r8'].digest[:8]}, imported" in out


def test_a_method_that_is_none(cli: Cli, registry: Registry) -> None:
    code, _, err = cli("blend", "a=1", "--name", "c", "--method", "tie", "--registry", str(registry.path))
    assert code == 2
    assert err.splitlines() == [
        "error: 'tie' is no method; there are exact, ties, dare-ties, magnitude.",
        "hint:  --method ties",
    ]

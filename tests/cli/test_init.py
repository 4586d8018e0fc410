"""``init``: a project, or a recipe with every key commented."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from adapterkit.cli.start import commented_recipe
from adapterkit.recipe import load
from adapterkit.recipe.keys import keys
from adapterkit.recipe.schema import Recipe
from adapterkit.registry.store import Registry

Cli = Callable[..., tuple[int, str, str]]
VALUE = re.compile(r"# ((?:  )?[a-z_]+:.*)")  # a key or a group; help lines begin with a second #


def uncommented(text: str) -> str:
    """The recipe as a person makes it who takes the first # off every line with a key."""
    head, *rest = text.split("\n\n", 1)
    lines = (head.split("\n", 2)[2] + "\n\n" + "".join(rest)).split("\n")
    return "\n".join(m.group(1) if (m := VALUE.fullmatch(line)) else line for line in lines)


def test_init_makes_a_project(cli: Cli) -> None:
    assert cli("init") == (0, "made adapters/registry.json\nmade configs\nmade .gitignore\n", "")
    assert Path("adapters/registry.json").is_file()
    assert Path("configs").is_dir()


def test_the_registry_of_the_project_is_the_one_found_from_then_on(cli: Cli, tmp_path: Path) -> None:
    cli("init")
    assert Registry().path == tmp_path / "desk" / "adapters"


def test_init_takes_a_folder_that_is_not_there_yet(cli: Cli) -> None:
    cli("init", "my/novel")
    assert Path("my/novel/adapters/registry.json").is_file()


def test_init_leaves_a_gitignore_alone(cli: Cli) -> None:
    Path(".gitignore").write_text("mine\n")
    cli("init")
    assert Path(".gitignore").read_text() == "mine\n"


def test_the_gitignore_keeps_adapters_out_and_the_marker_in(cli: Cli) -> None:
    cli("init")
    assert Path(".gitignore").read_text().split() == ["adapters/*", "!adapters/registry.json"]


def test_init_again_makes_nothing_and_says_so(cli: Cli) -> None:
    cli("init")
    assert "made" not in cli("init")[1]


def test_init_as_json_lists_what_was_made(cli: Cli) -> None:
    told = json.loads(cli("init", "--json")[1])
    assert told == {"schema": 1, "made": ["adapters/registry.json", "configs", ".gitignore"]}


def test_init_recipe_writes_a_recipe_and_no_project(cli: Cli) -> None:
    assert cli("init", "--recipe", "noir") == (0, "made configs/noir.yaml\n", "")
    assert not Path("adapters").exists()


def test_the_recipe_as_written_is_the_defaults(cli: Cli) -> None:
    cli("init", "--recipe", "noir")
    assert load.from_file(Path("configs/noir.yaml")).recipe == Recipe()


def test_the_recipe_with_every_value_uncommented_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "noir.yaml").write_text(uncommented(commented_recipe("noir")))
    assert load.from_file(tmp_path / "noir.yaml").recipe == Recipe()


def test_the_recipe_with_every_value_uncommented_has_every_key(tmp_path: Path) -> None:
    (tmp_path / "noir.yaml").write_text(uncommented(commented_recipe("noir")))
    assert set(load.from_file(tmp_path / "noir.yaml").origins) == set(keys())


def test_the_recipe_has_help_and_limits_of_every_key() -> None:
    text = commented_recipe("noir")
    assert [k.path for k in keys().values() if f"# {k.help} ({k.allowed})\n" not in text] == []


def test_the_recipe_has_no_group_without_a_name() -> None:
    assert "# :" not in commented_recipe("noir").splitlines()


def test_a_recipe_that_is_there_is_not_overwritten(cli: Cli) -> None:
    Path("configs").mkdir()
    Path("configs/noir.yaml").write_text("mine")
    assert cli("init", "--recipe", "noir") == (
        2,
        "",
        "error: configs/noir.yaml is there already.\nhint:  adapterkit init --recipe noir-2\n",
    )
    assert Path("configs/noir.yaml").read_text() == "mine"


def test_a_recipe_does_not_leave_its_folder(cli: Cli, tmp_path: Path) -> None:
    cli("init", "project", "--recipe", "../../../x")
    assert not (tmp_path / "x.yaml").exists()

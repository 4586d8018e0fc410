"""What docs/architecture.md promises about imports, public names, packages and help."""

from __future__ import annotations

import ast
import configparser
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import adapterkit
from adapterkit.cli.main import VERBS, Verbs, cli

ROOT = Path(adapterkit.__file__).parent
# Lowest first. A module imports from a lower row or its own folder; data and model may not meet.
ROWS = (
    ("errors",),
    ("files", "refs", "network", "cache"),
    ("recipe",),
    ("registry",),  # beside recipe in the picture, but it reads recipes back from manifests
    ("data", "model"),
    ("sharing",),
    ("scoring",),
    ("generation",),
    ("evaluation",),
    ("training",),
    ("merging",),
    ("exporting", "serving", "ui"),
    ("cli",),
    ("__main__",),
)
LEVEL = {folder: level for level, row in enumerate(ROWS) for folder in row}
WITHOUT_TORCH = {folder for row in ROWS[:4] for folder in row}
OWNERS = {"peft": {"model"}, "bitsandbytes": {"model"}, "datasets": {"data"}, "click": {"cli"}}
MODULES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")
VERB_NAMES = [verb for verbs in VERBS.values() for verb in verbs]


def _folder(path: Path) -> str:
    """``errors`` for errors.py, ``recipe`` for anything in recipe/."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(tree: ast.AST) -> Iterator[str]:
    """Full names of everything imported, at any depth and also for type checking only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own(name: str) -> str | None:
    """The folder of an import of ours; None for another package or adapterkit itself."""
    first, _, rest = name.partition(".")
    if first != "adapterkit" or not rest or rest == "__version__":
        return None
    folder = rest.split(".")[0]
    return folder if folder in LEVEL else adapterkit._HOMES[folder].split(".")[0]


def _allowed(importer: str, imported: str) -> bool:
    return importer == imported or LEVEL[imported] < LEVEL[importer]


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("importer", "imported", "expected"),
    [
        ("cli", "training", True),
        ("data", "data", True),
        ("registry", "recipe", True),
        ("data", "model", False),
        ("model", "data", False),
        ("files", "refs", False),
        ("recipe", "registry", False),
        ("generation", "training", False),
        ("errors", "files", False),
    ],
)
def test_the_rule_of_the_layers_is_the_one_of_the_picture(
    importer: str, imported: str, expected: bool
) -> None:
    assert _allowed(importer, imported) is expected


def test_imports_are_found_at_any_depth() -> None:
    code = "import a.b\ndef f():\n  from adapterkit import files\nif TYPE_CHECKING:\n  from adapterkit.cli.main import run"
    assert sorted(_imports(ast.parse(code))) == ["a.b", "adapterkit.cli.main.run", "adapterkit.files"]


def test_every_folder_has_a_layer() -> None:
    assert {_folder(p) for p in MODULES} <= LEVEL.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_from_lower_layers_or_its_own_folder(path: Path) -> None:
    here = _folder(path)
    upward = [n for n in _imports(_parsed(path)) if (o := _own(n)) and not _allowed(here, o)]
    assert upward == []


@pytest.mark.parametrize("package", OWNERS)
def test_a_package_is_imported_only_by_its_owner(package: str) -> None:
    users = {_folder(p) for p in MODULES if any(n.split(".")[0] == package for n in _imports(_parsed(p)))}
    assert users <= OWNERS[package]


@pytest.mark.parametrize(
    "path", [p for p in MODULES if _folder(p) in WITHOUT_TORCH], ids=lambda p: str(p.relative_to(ROOT))
)
def test_up_to_the_registry_nothing_imports_torch(path: Path) -> None:
    heavy = {"torch", "transformers", "peft", "datasets", "tokenizers"}
    assert heavy.isdisjoint(n.split(".")[0] for n in _imports(_parsed(path)))


def test_nothing_prints_outside_the_command_line() -> None:
    calls = [
        f"{p.relative_to(ROOT)}:{node.lineno}"
        for p in MODULES
        if _folder(p) != "cli"
        for node in ast.walk(_parsed(p))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert calls == []


def test_no_module_of_the_command_line_loads_torch_at_its_top() -> None:
    """The same as below without a process: imports of heavy layers stand in functions."""
    heavy = {"data", "scoring", "generation", "evaluation", "training", "merging", "exporting"}
    at_top = [
        f"{p.name}: {name}"
        for p in (ROOT / "cli").glob("*.py")
        for node in _parsed(p).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in _imports(node)
        if _own(name) in heavy
    ]
    assert at_top == []


# --- in a process of its own ----------------------------------------------------


def _loaded_after(code: str) -> set[str]:
    """Names in sys.modules at the end of a fresh process, top packages only."""
    tail = "\nimport json, sys\njson.dump(sorted({m.partition('.')[0] for m in sys.modules}), sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


HEAVY = {"torch", "transformers", "peft", "datasets", "accelerate", "huggingface_hub"}


def test_help_of_every_verb_leaves_torch_out() -> None:
    runs = [[], ["--help"], *([verb, "--help"] for verb in VERB_NAMES), ["train", "--help-all"]]
    loaded = _loaded_after(
        f"from adapterkit.cli.main import run\nfor argv in {runs!r}: assert run(argv) == 0, argv"
    )
    assert loaded & HEAVY == set()


def test_list_and_show_leave_torch_out(tmp_path: Path) -> None:
    from adapterkit.registry.store import Registry
    from tests.versions import publish

    publish(Registry(tmp_path / "adapters"), "noir")
    runs = [["list"], ["show", "noir"], ["show", "noir", "--recipe"], ["init", str(tmp_path / "x")]]
    place = ["--registry", str(tmp_path / "adapters")]
    loaded = _loaded_after(
        f"from adapterkit.cli.main import run\nfor argv in {runs!r}: assert run(argv + {place!r}) == 0, argv"
    )
    assert loaded & HEAVY == set()


def test_a_slip_is_answered_before_torch_is_loaded() -> None:
    runs = [
        ["train", "gone.txt"],
        ["train", "wikitex"],
        ["train", "noir", "--lora-r", "many"],
        ["chat", "storys"],
    ]
    loaded = _loaded_after(
        f"from adapterkit.cli.main import run\nfor argv in {runs!r}: assert run(argv) == 1, argv"
    )
    assert loaded & HEAVY == set()


def test_importing_adapterkit_loads_nothing_else() -> None:
    loaded = _loaded_after("import adapterkit, sys\nassert 'adapterkit.errors' not in sys.modules")
    assert loaded & {*HEAVY, "pydantic", "numpy", "click"} == set()


def test_python_m_adapterkit_is_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "adapterkit", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"AdapterKit, version {adapterkit.__version__}\n"


# --- help -------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERB_NAMES)
def test_the_help_line_of_a_verb_is_its_commands_own(verb: str) -> None:
    import click

    assert isinstance(cli, Verbs)
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    told = next(help for verbs in VERBS.values() for v, (_, help) in verbs.items() if v == verb)
    assert command.name == verb
    assert command.get_short_help_str(limit=200).rstrip(".") == told.rstrip(".")


@pytest.mark.parametrize("verb", VERB_NAMES)
def test_every_verb_has_the_common_options(verb: str) -> None:
    import click

    command = Verbs().get_command(click.Context(cli), verb)
    assert command is not None
    flags = {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
    assert {"--registry", "--json", "-q"} <= flags


def test_every_option_of_every_verb_has_help() -> None:
    import click

    ctx = click.Context(cli)
    commands = [Verbs().get_command(ctx, verb) for verb in VERB_NAMES]
    params = [(c.name, p) for c in commands if c for p in c.params if isinstance(p, click.Option)]
    assert [(name, p.name) for name, p in params if not p.help] == []


# --- public names -------------------------------------------------------------------


@pytest.fixture(scope="module")
def _everything_imported() -> None:
    for module in pkgutil.walk_packages(adapterkit.__path__, "adapterkit."):
        if not module.name.endswith("__main__"):
            import_module(module.name)


@pytest.mark.usefixtures("_everything_imported")
@pytest.mark.parametrize("name", adapterkit.__all__)
def test_a_public_name_is_one_callable_object(name: str) -> None:
    value = getattr(adapterkit, name)
    assert callable(value)
    assert value is getattr(adapterkit, name)
    assert value is getattr(import_module(f"adapterkit.{adapterkit._HOMES[name]}"), name)


@pytest.mark.usefixtures("_everything_imported")
def test_no_subpackage_hides_a_public_name() -> None:
    folders = {m.name for m in pkgutil.iter_modules(adapterkit.__path__)}
    assert folders.isdisjoint(adapterkit.__all__)


def test_public_names_are_sorted() -> None:
    assert list(adapterkit.__all__) == sorted(adapterkit.__all__)


def test_type_checkers_see_every_public_name() -> None:
    block = next(n for n in _parsed(ROOT / "__init__.py").body if isinstance(n, ast.If))
    seen = {
        f"{node.module}.{a.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for a in node.names
    }
    assert seen == {f"adapterkit.{home}.{name}" for name, home in adapterkit._HOMES.items()}


def test_every_public_name_is_in_dir() -> None:
    assert set(adapterkit.__all__) <= set(dir(adapterkit))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Adaptor'"):
        _ = adapterkit.Adaptor


# --- packaging ------------------------------------------------------------------------


def test_setup_cfg_lists_every_package_that_exists_and_no_other() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT.parent / "setup.cfg")
    listed = setup["options"]["packages"].split()
    found = {".".join(p.parent.relative_to(ROOT.parent).parts) for p in ROOT.rglob("__init__.py")}
    assert sorted(listed) == sorted(found | {"adapterkit.configs"})


def test_the_recipes_are_the_package_configs() -> None:
    assert Path(import_module("adapterkit.configs").__file__ or "").parent == ROOT.parent / "configs"

"""From a YAML file and flags to one validated recipe that knows where each value came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapterkit.errors import NotFound, RecipeError, nearest
from adapterkit.recipe import yaml12
from adapterkit.recipe.keys import Key, keys
from adapterkit.recipe.schema import Recipe

SEE_KEYS = "every key with default and limits: adapterkit init --recipe example"

# PEFT's words for variants of LoRA that are known and not done, each with why.
BASE_CHANGES = "it changes the base itself, so the adapter would fit no other copy of it"
ONE_SHAPE = "every layer's update has one rank and scale, so that adapters are mixed and switched per call"
FULL_ONLY = "an adapter holds LoRA updates alone; --method full trains every weight"
VARIANTS = {
    **dict.fromkeys(
        ("dora", "use_dora", "variant"),
        "DoRA can't be served beside other adapters and is not worth its cost",
    ),
    **dict.fromkeys(
        ("init_lora_weights", "pissa", "olora", "loftq", "loftq_config", "corda", "eva"), BASE_CHANGES
    ),
    **dict.fromkeys(("rank_pattern", "alpha_pattern", "adalora", "target_r", "init_r"), ONE_SHAPE),
    **dict.fromkeys(("bias", "lora_bias", "modules_to_save", "train_embeddings"), FULL_ONLY),
    **dict.fromkeys(
        ("layer_replication", "use_qalora", "use_bdlora", "lora_ga_config"), "only plain LoRA is served"
    ),
}


@dataclass(frozen=True)
class Loaded:
    """A recipe, the name it goes by, its folder, and the origin of each value that is not a default."""

    recipe: Recipe
    name: str = ""
    folder: Path | None = None  # relative sources are looked up here
    origins: Mapping[str, str] = field(default_factory=dict)


def from_file(path: Path, flags: Mapping[str, Any] | None = None) -> Loaded:
    """Read a recipe file and lay flags over it. All problems are reported at once."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(
            f"there is no recipe {str(path)!r}.", hint="adapterkit init --recipe example"
        ) from None
    except (UnicodeDecodeError, IsADirectoryError) as e:
        raise RecipeError(f"{path} is not a recipe: {e}.", hint=SEE_KEYS) from e
    values, lines = yaml12.read(text, str(path))
    origins = {key: f"{path} line {line}" for key, line in lines.items()}
    loaded = _merge(values, origins, flags or {}, name=path.stem, folder=path.parent)
    return replace(loaded, folder=None) if _names_text_of_the_user(loaded) else loaded


def _names_text_of_the_user(loaded: Loaded) -> bool:
    """A recipe of the package that is for a text in the working folder, such as data.txt."""
    source = loaded.recipe.data.source
    ours = loaded.folder == Path(str(resources.files("adapterkit.configs")))
    return ours and isinstance(source, str) and not source.startswith(("texts/", "hub:"))


def from_flags(flags: Mapping[str, Any], name: str = "") -> Loaded:
    """A recipe of defaults and flags alone."""
    return _merge({}, {}, flags, name=name, folder=None)


def packaged(name: str) -> Path | None:
    """The recipe of that name that comes with the package."""
    path = Path(str(resources.files("adapterkit.configs"))) / f"{name}.yaml"
    return path if path.is_file() else None


def packaged_names() -> list[str]:
    return sorted(p.stem for p in Path(str(resources.files("adapterkit.configs"))).glob("*.yaml"))


def find(name: str) -> Path:
    """``./configs/NAME.yaml``, else the packaged one."""
    here = Path("configs") / f"{name}.yaml"
    found = here if here.is_file() else packaged(name)
    if found is None:
        known = {*packaged_names(), *(p.stem for p in Path("configs").glob("*.yaml"))}
        close = nearest(name, known)
        raise NotFound(
            f"there is no recipe {name!r} in ./configs or in the package.",
            hint=f"--recipe {close}" if close else f"there are: {', '.join(sorted(known))}",
        )
    return found


def _merge(
    values: dict[str, Any],
    origins: dict[str, str],
    flags: Mapping[str, Any],
    *,
    name: str,
    folder: Path | None,
) -> Loaded:
    problems: list[str] = []
    for path, raw in flags.items():
        if path not in keys():
            problems.append(_unknown(path, "--set"))
            continue
        origins[path] = keys()[path].flag
        _put(values, path, _typed(keys()[path], raw))
    recipe, found = _validate(values, origins)
    problems += found
    if recipe is None or problems:
        shown = (
            problems[0] if len(problems) == 1 else "\n       ".join([f"{len(problems)} problems:", *problems])
        )
        raise RecipeError(shown, hint=SEE_KEYS, details={"problems": problems})
    return Loaded(recipe, name, folder, {k: v for k, v in origins.items() if k in keys()})


def _typed(key: Key, raw: Any) -> Any:
    """What a flag's words mean to its key; a value from Python is one already."""
    if not isinstance(raw, str):
        return raw
    value = yaml12.scalar(raw)
    if key.kinds == (list,):  # --data-clean unicode is a list of one
        if key.path == "data.clean" and (rules := _rules(raw)):
            return rules
        return value if isinstance(value, list) else [value]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and {int, float} & set(key.kinds):
        return value
    is_taken_back = value is None and "null" in key.choices
    # a text key takes the words as typed: --set data.revision=0123
    is_list = isinstance(value, list) and raw.lstrip().startswith("[")  # a lone "-" is stdin, not a list
    is_text = str in key.kinds and not is_list and not is_taken_back
    return raw if is_text else value


def _rules(raw: str) -> list[Any]:
    """``unicode,whitespace`` or ``{drop: "wolf"}``, which are lists but for their brackets; else nothing."""
    if raw.lstrip().startswith("["):
        return []
    value = yaml12.scalar(f"[{raw}]")
    return value if isinstance(value, list) and all(isinstance(v, str | dict) for v in value) else []


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *groups, last = path.split(".")
    for group in groups:
        inner = values.setdefault(group, {})
        if not isinstance(inner, dict):
            return  # the group itself is wrong; validation says so
        values = inner
    values[last] = value


def _validate(values: dict[str, Any], origins: Mapping[str, str]) -> tuple[Recipe | None, list[str]]:
    try:
        return Recipe.model_validate(values), []
    except ValidationError as e:
        problems: dict[str, str] = {}  # one a key: a union reports each of its ways
        for error in e.errors(include_url=False):
            path = _key_of(tuple(map(str, error["loc"])))
            problems.setdefault(path, _word(path, error, origins))
        return None, list(problems.values())


def _key_of(loc: tuple[str, ...]) -> str:
    """The longest beginning of a pydantic location that is a key or a group."""
    groups = {p.rpartition(".")[0] for p in keys()}
    for n in range(len(loc), 0, -1):
        path = ".".join(loc[:n])
        if path in keys() or path in groups:
            return path if n == len(loc) or path in keys() else ".".join(loc[: n + 1])
    return ".".join(loc)


def _word(path: str, error: Any, origins: Mapping[str, str]) -> str:
    if error["type"] in ("extra_forbidden", "invalid_key"):  # invalid: a key that is a number
        is_dotted = any("." in str(part) for part in error["loc"])
        return _unknown(path, origins.get(path, ""), is_dotted=is_dotted)
    where = origins.get(path) or next((o for k, o in origins.items() if path.startswith(k)), "")
    key = keys().get(path)
    limit = f"it must be {key.allowed}" if key else "it must hold keys of its own"
    told = f"{path!r} is {error['input']!r}; {limit}"
    if error["type"] == "value_error":  # a rule of ours, which says more than the kind
        told = f"{path!r} has {error['ctx']['error']}"
    return f"{where}: {told}" if where else told


def _unknown(path: str, where: str, *, is_dotted: bool = False) -> str:
    last = {k.rpartition(".")[2]: k for k in keys()}
    synonyms = {
        "rank": "lora.r",
        "lora.rank": "lora.r",
        "use_rslora": "lora.rslora",
        "lora.use_rslora": "lora.rslora",
        "lr": "train.learning_rate",
        "train.lr": "train.learning_rate",
    }
    if why := VARIANTS.get(path.removeprefix("lora.")):
        told = f"{path!r} is not done: {why}"
        return f"{where}: {told}" if where else told
    close = (
        synonyms.get(path) or nearest(path, keys()) or last.get(nearest(path.rpartition(".")[2], last) or "")
    )
    hint = f", did you mean {close!r}?" if close else ""
    if is_dotted and close and "." in close:  # right in a flag, but a file nests its keys
        group, _, name = close.rpartition(".")
        hint = f"; in a recipe it is written nested: '{group}: {{{name}: ...}}'"
    return f"{where}: unknown key {path!r}{hint}" if where else f"unknown key {path!r}{hint}"

"""AdapterKit: one GPT-2, many small styles.

Fine-tune GPT-2 on your own texts as adapters, keep them in a registry, and
choose which one writes at every call. Names here are imported on first use, so
that ``import adapterkit`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AdapterKitError": "errors",
    "BaseMismatch": "errors",
    "CheckFailed": "errors",
    "Comparison": "generation.results",
    "Completion": "generation.results",
    "Damaged": "errors",
    "DataError": "errors",
    "DataReport": "data.report",
    "Documents": "data.sources",
    "Forked": "errors",
    "Generator": "generation.generator",
    "NameTaken": "errors",
    "NotFound": "errors",
    "OutOfMemory": "errors",
    "OutOfSpace": "errors",
    "Overloaded": "errors",
    "PromptTooLong": "errors",
    "Plan": "training.estimate",
    "Recipe": "recipe.schema",
    "RecipeError": "errors",
    "Registry": "registry.store",
    "Session": "generation.session",
    "Unreachable": "errors",
    "Unsupported": "errors",
    "Version": "registry.version",
    "Written": "merging.merge",
    "blend": "merging.blend",
    "describe": "training.describe",
    "evaluate": "evaluation.run",
    "extract": "merging.extract",
    "merge": "merging.merge",
    "plan": "training.estimate",
    "repeat": "training.repeat",
    "train": "training.run",
    "with_adapters": "generation.plain",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from adapterkit.data.report import DataReport as DataReport
    from adapterkit.data.sources import Documents as Documents
    from adapterkit.errors import AdapterKitError as AdapterKitError
    from adapterkit.errors import BaseMismatch as BaseMismatch
    from adapterkit.errors import CheckFailed as CheckFailed
    from adapterkit.errors import Damaged as Damaged
    from adapterkit.errors import DataError as DataError
    from adapterkit.errors import Forked as Forked
    from adapterkit.errors import NameTaken as NameTaken
    from adapterkit.errors import NotFound as NotFound
    from adapterkit.errors import OutOfMemory as OutOfMemory
    from adapterkit.errors import OutOfSpace as OutOfSpace
    from adapterkit.errors import Overloaded as Overloaded
    from adapterkit.errors import PromptTooLong as PromptTooLong
    from adapterkit.errors import RecipeError as RecipeError
    from adapterkit.errors import Unreachable as Unreachable
    from adapterkit.errors import Unsupported as Unsupported
    from adapterkit.evaluation.run import evaluate as evaluate
    from adapterkit.generation.generator import Generator as Generator
    from adapterkit.generation.plain import with_adapters as with_adapters
    from adapterkit.generation.results import Comparison as Comparison
    from adapterkit.generation.results import Completion as Completion
    from adapterkit.generation.session import Session as Session
    from adapterkit.merging.blend import blend as blend
    from adapterkit.merging.extract import extract as extract
    from adapterkit.merging.merge import Written as Written
    from adapterkit.merging.merge import merge as merge
    from adapterkit.recipe.schema import Recipe as Recipe
    from adapterkit.registry.store import Registry as Registry
    from adapterkit.registry.version import Version as Version
    from adapterkit.training.describe import describe as describe
    from adapterkit.training.estimate import Plan as Plan
    from adapterkit.training.estimate import plan as plan
    from adapterkit.training.repeat import repeat as repeat
    from adapterkit.training.run import train as train


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'adapterkit' has no attribute {name!r}")
    value = getattr(import_module(f"adapterkit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

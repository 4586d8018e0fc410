"""The command line's root: verbs by group, loaded when used; errors in two lines.

``--help`` imports nothing but click. Every deliberate error becomes two lines
on stderr and its exit code; a traceback means a bug of ours (70).
"""

from __future__ import annotations

import errno
import json
import logging
import re
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

import adapterkit
from adapterkit.errors import AdapterKitError, Interrupted, OutOfSpace, Unsupported, UsageProblem

# Heading -> verb -> (module, help). The help repeats the command's own first line; a test keeps them equal.
VERBS: dict[str, dict[str, tuple[str, str]]] = {
    "Start": {
        "demo": ("demo", "A minute, no network: three adapters on the toy base."),
        "doctor": ("doctor", "Versions, device and why, folders, disk by place, problems."),
        "init": ("start", "Make a project here, or a recipe with every key commented."),
    },
    "Make": {
        "data": ("data", "What would be learned from a text; trains nothing."),
        "train": ("train", "Learn a style from text, or follow a recipe."),
        "evaluate": ("evaluate", "Score adapters on unseen text, the base beside each."),
    },
    "Write": {
        "generate": ("write", "Write on from a prompt with an adapter."),
        "compare": ("write", "Several adapters on one prompt, same seed, side by side."),
        "chat": ("chat", "Write together with an adapter, turn by turn."),
    },
    "Keep": {
        "list": ("keep", "The adapters: newest version of each name."),
        "show": ("keep", "How a version was made and how good it is."),
        "log": ("history", "What happened, when; the newest last."),
        "diff": ("history", "How two versions were made differently, and what came of it."),
        "alias": ("tend", "A movable name for a version, such as noir@prod."),
        "note": ("tend", "A few words kept with a version."),
        "rename": ("tend", "Call an adapter otherwise."),
        "delete": ("tend", "Hide versions; restore undoes it within 7 days."),
        "restore": ("tend", "Undo delete."),
        "verify": ("upkeep", "Every byte against the manifests."),
        "gc": ("upkeep", "Remove leftovers: torn writes, and versions deleted more than 7 days ago."),
    },
    "Share": {
        "pack": ("share", "One file each to give away."),
        "import": ("share", "Bring in a packed file, a folder of PEFT, or an adapter of the Hub."),
        "push": ("share", "Upload a version to the Hugging Face Hub; private unless --public."),
    },
    "Combine and convert": {
        "blend": ("blend", "Several adapters of one base as one, such as noir=0.7,shanty=0.3."),
        "merge": ("merge", "One adapter put into its base: a plain transformers folder."),
        "extract": ("extract", "A LoRA adapter from a full fine-tune."),
    },
}
# Words that people bring from elsewhere, and ours.
MEANT = {
    "rm": "delete", "remove": "delete", "retire": "delete", "del": "delete", "unpublish": "delete",
    "undelete": "restore", "undo": "restore", "recover": "restore",
    "pull": "import hub:", "download": "import hub:", "install": "import", "add": "import", "unpack": "import",
    "publish": "push", "upload": "push", "archive": "pack", "save": "pack", "bundle": "pack",
    "finetune": "train", "fine-tune": "train", "tune": "train", "resume": "train --resume",
    "run": "chat", "sample": "generate", "complete": "generate", "write": "generate", "eval": "evaluate",
    "test": "evaluate", "versions": "list", "ls": "list", "inspect": "show", "info": "show", "cat": "show",
    "history": "log", "mix": "blend", "tag": "alias", "mv": "rename", "move": "rename", "annotate": "note",
    "fsck": "verify", "check": "verify", "clean": "gc", "cleanup": "gc", "prune": "gc", "repair": "doctor --fix",
}  # fmt: skip
LATER = frozenset({"export", "serve", "ui"})


class Verbs(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [verb for verbs in VERBS.values() for verb in verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for verbs in VERBS.values():
            if cmd_name in verbs:
                module = import_module(f"adapterkit.cli.{verbs[cmd_name][0]}")
                command: click.Command = getattr(module, f"{cmd_name}_verb")
                return command
        return None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        verb = args[0]
        if self.get_command(ctx, verb) is None and not verb.startswith("-"):
            raise self._no_verb(ctx, verb, args[1:])
        return super().resolve_command(ctx, args)

    def _no_verb(self, ctx: click.Context, verb: str, rest: list[str]) -> UsageProblem:
        if verb in LATER:
            return UsageProblem(f"{verb!r} is not there yet.", hint="all commands: adapterkit --help")
        meant = MEANT.get(verb)
        if meant and not self._is_there(ctx, meant):
            return UsageProblem(
                f"there is no command {verb!r}, and {meant!r} is not there yet.", hint="adapterkit --help"
            )
        close = [meant] if meant else get_close_matches(verb, self.list_commands(ctx), n=1)
        glue = "" if close and close[0].endswith(":") else " "
        typed = glue + shlex.join(rest) if rest else ""
        hint = f"adapterkit {close[0]}{typed}" if close else "all commands: adapterkit --help"
        return UsageProblem(f"there is no command {verb!r}.", hint=hint)

    def _is_there(self, ctx: click.Context, meant: str) -> bool:
        """Whether a verb of ours has come already, with its options."""
        verb, *options = meant.split()
        command = self.get_command(ctx, verb)
        flags = [word for word in options if word.startswith("-")]
        return command is not None and {o for p in command.params for o in p.opts}.issuperset(flags)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, verbs in VERBS.items():
            with formatter.section(heading):
                formatter.write_dl([(verb, told) for verb, (_, told) in verbs.items()], col_max=12)


@click.group(cls=Verbs, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(adapterkit.__version__, prog_name="AdapterKit")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """One GPT-2, many small styles: fine-tune, keep, switch and share adapters."""
    if ctx.invoked_subcommand is None:
        from adapterkit.cli.start import start_screen

        start_screen()


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Exit code of one command, its error already shown."""
    with _warnings_shown():
        return _run(argv)


def _run(argv: list[str]) -> int:
    try:
        code = cli(argv, prog_name="adapterkit", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except Interrupted as e:  # asked for, so no error
        if "--json" in argv:
            _show(e.message, e.hint, e.code, e.details, as_json=True)
        else:
            click.echo(f"{e.message}\nhint:  {e.hint}", err=True)
        return e.exit_code
    except AdapterKitError as e:
        _show(e.message, _pasted(e, argv), e.code, e.details, as_json="--json" in argv)
        return e.exit_code
    except click.UsageError as e:
        hint = f"{e.ctx.command_path} --help" if e.ctx else "adapterkit --help"
        _show(e.format_message(), hint, "usage", {}, as_json="--json" in argv)
        return 2
    except (KeyboardInterrupt, click.Abort, EOFError):
        click.echo("stopped.", err=True)
        return 130
    except SystemExit as e:  # click's answer to a reader of a pipe that left, as `| head` does
        if isinstance(e.__context__, BrokenPipeError):
            return 0
        raise
    except BrokenPipeError:  # the same, with something left to be written
        sys.stderr.close()
        return 0
    except OSError as e:
        told = _of_the_system(e)
        if told is None:
            return _our_bug()
        _show(told.message, told.hint, told.code, {}, as_json="--json" in argv)
        return told.exit_code
    except Exception:
        return _our_bug()


class _Notes(logging.Handler):
    """Warnings of the library as dim lines on stderr; under -q too, as they are about what may be lost."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(click.style(f"· {record.getMessage()}", dim=True), err=True)


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Show them once: nobody else's handler sees them meanwhile."""
    log, handler = logging.getLogger("adapterkit"), _Notes(logging.WARNING)
    before = log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = before


def _of_the_system(e: OSError) -> AdapterKitError | None:
    """What the disk or its rights refused, wherever that was; None for anything else."""
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace(f"the disk is full: {e}.", "free some space, then run the same command again")
    if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and e.filename:
        told = f"{e.filename} may not be opened or changed ({e.strerror})."
        return Unsupported(told, "use an account that may, or other modes", code="no-rights")
    return None


def _pasted(error: AdapterKitError, argv: list[str]) -> str:
    """The hint; after a name misspelt, the command as it was meant, and the hint's aside."""
    wrong, right = error.details.get("name", ""), error.details.get("nearest")
    place = next((i for i, word in enumerate(argv[1:], 1) if wrong in _names(word)), None)
    if not right or place is None:
        return error.hint
    parts = re.split(r"(,)", argv[place])
    mended = "".join(p.replace(wrong, right, 1) if _names(p) == [wrong] else p for p in parts)
    aside = error.hint.partition("     ")[2]
    return f"adapterkit {shlex.join([*argv[:place], mended, *argv[place + 1 :]])}     {aside}".rstrip()


def _names(word: str) -> list[str]:
    """Names of the adapters in a word such as ``noir@3=0.6,shanty=0.4``."""
    return [re.split("[@=]", part.strip(), maxsplit=1)[0] for part in word.split(",")]


def _our_bug() -> int:
    traceback.print_exc()
    click.echo(
        "\nThis is a bug in AdapterKit. Please report it with the lines above and: adapterkit doctor",
        err=True,
    )
    return 70


def _show(message: str, hint: str, code: str, details: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        told = {"error": {"code": code, "message": message, "hint": hint, "details": details}}
        click.echo(json.dumps(told, ensure_ascii=False, default=str), err=True)
        return
    click.echo(click.style("error: ", fg="red", bold=True) + message, err=True)
    if hint:
        click.echo(click.style("hint:  ", fg="cyan") + hint, err=True)

"""The command line's root: verbs by group, loaded when used; errors in two lines.

``--help`` imports nothing but click. Every deliberate error becomes two lines
on stderr and its exit code; a traceback means a bug of ours (70).
"""

from __future__ import annotations

import errno
import json
import re
import shlex
import sys
import traceback
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

import adapterkit
from adapterkit.errors import AdapterKitError, Interrupted, UsageProblem

# Heading -> verb -> (module, help). The help repeats the command's own first line; a test keeps them equal.
VERBS: dict[str, dict[str, tuple[str, str]]] = {
    "Start": {
        "demo": ("start", "A minute, no network: three adapters on the toy base."),
        "doctor": ("start", "Versions, device and why, folders, disk by place, problems."),
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
    },
}
MEANT = {
    "rm": "delete", "remove": "delete", "retire": "delete", "pull": "import", "finetune": "train", "fine-tune": "train",
    "run": "chat", "sample": "generate", "complete": "generate", "versions": "list", "ls": "list", "mix": "blend",
    "tag": "alias", "resume": "train --resume", "clean": "gc",
}  # fmt: skip


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
            raise self._no_verb(ctx, verb)
        return super().resolve_command(ctx, args)

    def _no_verb(self, ctx: click.Context, verb: str) -> UsageProblem:
        meant = MEANT.get(verb)
        if meant and not self._is_there(ctx, meant):
            return UsageProblem(
                f"there is no command {verb!r}, and {meant!r} is not there yet.", hint="adapterkit --help"
            )
        close = [meant] if meant else get_close_matches(verb, self.list_commands(ctx), n=1)
        hint = f"adapterkit {close[0]}" if close else "all commands: adapterkit --help"
        return UsageProblem(f"there is no command {verb!r}.", hint=hint)

    def _is_there(self, ctx: click.Context, meant: str) -> bool:
        """Whether a verb of ours has come already, with its options."""
        verb, *options = meant.split()
        command = self.get_command(ctx, verb)
        return command is not None and {o for p in command.params for o in p.opts}.issuperset(options)

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
    except BrokenPipeError:  # the reader of a pipe left, as `| head` does
        sys.stderr.close()
        return 0
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _our_bug()
        _show(
            f"the disk is full: {e}.",
            "free some space, then run the same command again",
            "out-of-space",
            {},
            as_json="--json" in argv,
        )
        return 4
    except Exception:
        return _our_bug()


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

"""Words of a command that are text: a prompt may begin with a dash."""

from __future__ import annotations

from collections.abc import Iterator

import click

MARK = "\0"  # which no argument of a program can hold


class Prose(click.Command):
    """A command to which an argument with a space is text, never an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, list(self._marked(args)))
        ctx.params["words"] = tuple(word.removeprefix(MARK) for word in ctx.params.get("words") or ())
        return rest

    def _marked(self, args: list[str]) -> Iterator[str]:
        """Arguments, texts that begin with a dash marked so that they are taken for words."""
        options = {o: p for p in self.params if isinstance(p, click.Option) for o in p.opts}
        is_value = is_end = False
        for arg in args:
            name, equals, _ = arg.partition("=")
            is_text = arg.startswith("-") and any(map(str.isspace, arg)) and not (equals and name in options)
            yield MARK + arg if is_text and not is_value and not is_end else arg
            is_end |= arg == "--" and not is_value
            option = options.get(arg)
            is_value = not is_value and option is not None and not option.is_flag

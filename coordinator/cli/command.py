"""How every command is made: common options, one JSON document or text, errors with their exit codes."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from coordinator.cli.desk import Desk
from coordinator.cli.output import Answer, Output, report_error
from coordinator.cli.profile import find_profile
from coordinator.devnet.layout import DEFAULT_DATA_DIR
from smpc.errors import BridgeError, ExitCode, InvalidInput

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout (watching: one a line).")]
DataDirOption = Annotated[
    Path | None,
    typer.Option("--data-dir", envvar="PEG_DATA_DIR", help="The devnet's directory.", show_default=".devnet"),
]
ProfileOption = Annotated[
    Path | None,
    typer.Option("--profile", envvar="PEG_PROFILE", help="Whom to talk to.", show_default="the devnet's profile"),
]

Body: TypeAlias = Callable[..., Coroutine[Any, Any, Answer | None]]
"""A command: a coroutine whose first parameter is the desk and whose others are its options."""

_COMMON: Final[tuple[tuple[str, Any, object], ...]] = (
    ("as_json", JsonOption, False),
    ("data_dir", DataDirOption, None),
    ("profile", ProfileOption, None),
)


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """What every command takes, and `peg` itself before the command's name."""

    as_json: bool = False
    data_dir: Path | None = None
    profile: Path | None = None

    def merge(self, root: object) -> CommonOptions:
        """Return these options with what was given before the command's name where they are silent."""
        if not isinstance(root, CommonOptions):
            return self
        return CommonOptions(self.as_json or root.as_json, self.data_dir or root.data_dir, self.profile or root.profile)


def command(app: typer.Typer, name: str, *, schema: str = "", examples: tuple[str, ...] = ()) -> Callable[[Body], Body]:
    """Register a coroutine as the command `name`. `schema` is its full name in words where the group adds some.

    The first line of its docstring and `examples` are its help.
    """

    def register(body: Body) -> Body:
        words = schema or name

        def run(ctx: typer.Context, **options: Any) -> None:  # noqa: ANN401 - as the signature below declares
            own = CommonOptions(options.pop("as_json"), options.pop("data_dir"), options.pop("profile"))
            _run(words, body, own.merge(ctx.obj), options)

        run.__doc__ = _build_help(body, examples)
        signature = inspect.signature(body, eval_str=True)
        run.__signature__ = _extend(signature)  # type: ignore[attr-defined]  # how typer learns the options
        app.command(name)(run)
        return body

    return register


def _run(words: str, body: Body, common: CommonOptions, options: dict[str, Any]) -> None:
    data_dir = (common.data_dir or DEFAULT_DATA_DIR).resolve()
    output = Output(words, "", as_json=common.as_json)
    desk = Desk(data_dir, common.profile or find_profile(data_dir), output)
    answer = asyncio.run(_serve(desk, functools.partial(body, desk, **options)))
    if answer is not None:
        output.show(answer)
        if answer.exit_code is not ExitCode.DONE:
            raise typer.Exit(answer.exit_code)


async def _serve(desk: Desk, work: Callable[[], Coroutine[Any, Any, Answer | None]]) -> Answer | None:
    async with desk:
        return await work()


def _extend(signature: inspect.Signature) -> inspect.Signature:
    options = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in list(signature.parameters.values())[1:]
    ]
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, annotation, default in _COMMON
    ]
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    return inspect.Signature([context, *options, *common])


def _build_help(body: Body, examples: tuple[str, ...]) -> str:
    text = inspect.getdoc(body) or ""
    if not examples:
        return text
    # Typer keeps the lines of a paragraph that begins with \b.
    return f"{text}\n\n\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)


def run_app(app: typer.Typer, arguments: Sequence[str]) -> ExitCode:
    """Run one command line and return its exit code; whatever goes wrong is said once."""
    as_json = "--json" in arguments
    try:
        code = app(list(arguments), standalone_mode=False)
    except BridgeError as error:
        report_error(error, as_json=as_json)
        return error.exit_code
    except typer.TyperException as error:
        report_error(InvalidInput(error.format_message(), code="USAGE", remedy="see --help"), as_json=as_json)
        return ExitCode.USAGE
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for the interpreter's own last flush
        return ExitCode.DONE
    return ExitCode(code) if isinstance(code, int) else ExitCode.DONE

"""reference/commands.md: every command and option of `evergreen`, with its help."""

import inspect
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from docs.reference_pages.markdown import code, page, sentence, table


def commands() -> dict[str, Any]:
    """Return the commands as click has them, by name."""
    from typer.main import get_command

    from flows.cli.main import app

    found: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    return {name: command for name, command in found.items() if not command.hidden}


def commands_page() -> str:
    """Return the page."""
    about = (
        "`--help` after a command shows the same. A command with `--json` prints exactly one JSON object on stdout; "
        "[schemas](schemas/) says what is in it. Logs go to stderr. A command exits with 1 when something broke and "
        "with 2 when the command line is wrong; [outcomes](outcomes.md) has the other exit codes."
    )
    contents = table(["command", ""], [[f"[{name}](#{name})", _first(one)] for name, one in commands().items()])
    return page("Commands", about, contents, *(_section(name, one) for name, one in commands().items()))


def _first(command: Any) -> str:
    return inspect.cleandoc(command.help or "").partition("\n\n")[0]


def _section(name: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
    usage = " ".join(["evergreen", name, *(_metavar(one) for one in arguments), *(["[OPTIONS]"] if options else [])])
    rows = [[code(_metavar(one)), "", sentence(one.help or "")] for one in arguments]
    rows += [[_option(one), _default(one), sentence(one.help or "")] for one in options]
    parts = [f"## {name}", inspect.cleandoc(command.help or ""), f"```\n{usage}\n```"]
    return "\n\n".join([*parts, table(["argument or option", "default", "meaning"], rows)] if rows else parts)


def _metavar(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return str(name if argument.required or name.startswith("[") else f"[{name}]")


def _option(option: Any) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return code(names)
    return code(f"{names} {option.metavar or _type(option)}")


def _type(option: Any) -> str:
    """Return the type of a value, such as INTEGER, or the values that there are."""
    annotation = option.type_descriptor.annotation
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if get_origin(annotation) is list:
        (annotation,) = get_args(annotation)
    return {str: "TEXT", int: "INTEGER", float: "FLOAT", Path: "PATH"}[annotation]


def _default(option: Any) -> str:
    if option.required:
        return "required"
    default = option.default
    return code(str(default)) if default not in (None, False, "", ()) and not callable(default) else ""

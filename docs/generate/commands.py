"""A page for every command, made of the command line's own code, with the examples of other pages."""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cleansteer.cli.app import app
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.main import get_command

PROGRAM = "cleansteer"
_EXAMPLE = re.compile(rf"^{PROGRAM} .*$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages into the menu, before the last entry."""
    pages = [{name: _path(name)} for name, _ in commands()]
    config.nav.insert(-1, {"Commands": ["commands/index.md", *pages]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    examples = _examples(Path(config.docs_dir))
    found = list(commands())
    files.append(File.generated(config, "commands/index.md", content=_overview(found)))
    for name, command in found:
        content = _page(name, command, examples)
        files.append(File.generated(config, _path(name), content=content))
    return files


def commands() -> Iterator[tuple[str, Any]]:
    """Every command and its name, those of groups with the group's name in front."""
    yield from _commands(get_command(app), ())


def _commands(group: Any, above: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*above, name))
        else:
            yield " ".join((*above, name)), command


def _path(name: str) -> str:
    return f"commands/{name.replace(' ', '-')}.md"


def _overview(found: list[tuple[str, Any]]) -> str:
    rows = [f"| [{name}]({_path(name).rpartition('/')[2]}) | {_brief(c)} |" for name, c in found]
    return "\n".join(
        [
            "# Commands",
            "",
            f"`{PROGRAM} COMMAND --help` prints what these pages hold: they are made of the same code.",
            "",
            "| command | what it does |",
            "|---|---|",
            *rows,
            "",
            "Text for people goes to stderr. With `--json`, stdout holds the result and nothing else.",
            "",
            "| exit code | meaning |",
            "|---|---|",
            "| 0 | done |",
            "| 2 | bad input: one line says what was given, what was expected, and what to do |",
            "| 3 | done, but not to be trusted (`--strict`) |",
            "| 130 | interrupted: the same command goes on (`train`, `sweep`: with `--resume`) |",
            "",
        ]
    )


def _brief(command: Any) -> str:
    return " ".join(command.help.split("\n\n")[0].split())


def _page(name: str, command: Any, examples: list[str]) -> str:
    context = command.make_context(f"{PROGRAM} {name}", [], resilient_parsing=True)
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    usage = " ".join([PROGRAM, name, "[OPTIONS]", *map(_metavar, arguments)])
    parts = [f"# {PROGRAM} {name}", command.help, f"```\n{usage}\n```"]
    for title, some in (("Arguments", arguments), ("Options", options)):
        if some:
            rows = [_row(parameter, context) for parameter in some]
            heads = [f"## {title}", "", f"| {title.lower()} | meaning |", "|---|---|"]
            parts.append("\n".join([*heads, *rows]))
    ours = [line for line in examples if f"{line} ".startswith(f"{PROGRAM} {name} ")]
    if ours:
        parts.append("\n".join(["## Examples", "", "```", *ours, "```"]))
    return "\n\n".join(parts) + "\n"


def _row(parameter: Any, context: Any) -> str:
    what, text = parameter.get_help_record(context)
    if parameter.param_type_name == "argument":
        what = _metavar(parameter)
    return f"| <code>{_cell(what)}</code> | {_cell(text)} |"


def _metavar(argument: Any) -> str:
    return argument.metavar or argument.name.upper()


def _cell(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False).replace("|", "&#124;")


def _examples(folder: Path) -> list[str]:
    """The command lines that the written pages show, without what is said of them, each once."""
    texts = (path.read_text("utf-8") for path in sorted(folder.glob("*.md")))
    lines = (line for text in texts for line in _EXAMPLE.findall(text))
    return list(dict.fromkeys(line.partition(" #")[0].rstrip() for line in lines))

"""What pages say of files and settings, made of the code: ``<!-- NAME -->`` is replaced."""

import inspect
import re
import tomllib
from pathlib import Path

from cleansteer.adapters.components.component import component_class, names
from cleansteer.core.settings import field_texts
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_MARK = re.compile(r"^<!-- (settings|components|columns (\w+)) -->$", re.MULTILINE)
_COLUMNS = Path(__file__).with_name("columns.toml")
_FIGURES = ("learning_curve.svg",)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the figures that lie with the code that makes them."""
    folder = Path(config.docs_dir).parent / "benchmarks"
    for name in _FIGURES:
        files.append(File.generated(config, name, abs_src_path=str(folder / name)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace the marks of a page."""
    return _MARK.sub(_block, markdown)


def _block(match: re.Match[str]) -> str:
    if match[2] is not None:
        meanings = tomllib.loads(_COLUMNS.read_text("utf-8"))[match[2]]
        return _table(("column", "meaning"), [(f"`{k}`", v) for k, v in meanings.items()])
    return {"settings": _settings, "components": _components}[match[1]]()


def _settings() -> str:
    rows = [(f"`{k}`", f"`{t['default']}`", t["meaning"]) for k, t in field_texts().items()]
    return _table(("key", "default", "meaning"), rows)


def _components() -> str:
    rows = []
    for name in names():
        component = component_class(name)
        options = [
            f"`{key}` {option.default:g}: {option.meaning}"
            for key, option in component.options.items()
        ]
        source = " ".join((inspect.getdoc(component) or "").split()).partition("Source: ")[2]
        rows.append((f"`{name}`", "; ".join(options) or "none", source))
    return _table(("component", "options and their defaults", "source"), rows)


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(c) for c in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

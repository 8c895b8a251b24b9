"""The README and the documentation: what they show, in their order."""

import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

import cleansteer

ROOT = Path(cleansteer.__file__).parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
Steps = list[list[str] | str]
"""Arguments of cleansteer, or Python code."""

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Fence:
    """A fenced block."""

    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Command lines, without what is said of them."""
        joined = self.text.replace("\\\n", " ")
        lines = (line.partition(" #")[0].strip() for line in joined.splitlines())
        return [line for line in lines if line]


def fences(page: Path) -> list[Fence]:
    found = _FENCE.findall(page.read_text("utf-8"))
    return [
        Fence(language, "".join(line.removeprefix(indent) for line in text.splitlines(True)))
        for indent, language, text in found
    ]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def steps_of(page: Path) -> Steps:
    """What a page shows to be done with cleansteer."""
    steps: Steps = []
    for fence in fences(page):
        if fence.language == "python":
            steps.append(fence.text)
        if fence.language == "sh":
            words = [shlex.split(command) for command in fence.commands]
            steps += [command[1:] for command in words if command[0] == "cleansteer"]
    return steps


def setting_of(page: Path) -> str | None:
    """The setting that a page shows."""
    for fence in fences(page):
        if fence.language == "toml" and tomllib.loads(fence.text).get("name") == "my-setting":
            return fence.text
    return None


def inline(page: Path) -> list[str]:
    """Code within sentences, white space normalised."""
    return [" ".join(code.split()) for code in _INLINE.findall(_prose(page))]


def links(page: Path) -> list[str]:
    """Targets of links that are not of the web."""
    return [target for target in _LINK.findall(_prose(page)) if "://" not in target]


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text("utf-8"))

"""Options that are made from a model: one for every field, told and defaulted as it is there."""

import subprocess
import sys
from typing import Annotated, Any, Literal

import pytest
import typer
from cleansteer.cli.app import app
from cleansteer.cli.models import NONE_GIVEN, Given, ModelCommand, options_of
from cleansteer.core.training import TrainingOptions
from pydantic import BaseModel, ConfigDict, Field, create_model
from typer.main import get_command
from typer.testing import CliRunner


class Small(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    kind: Literal["one", "two"] = "one"
    """Which kind."""
    step_count: Annotated[int, Field(ge=1)] | None = None
    """How many
    steps."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Of the whole."""
    loud: bool = False
    """Say it aloud."""
    kept: bool = True
    """Keep it."""
    weight: float = 0.0
    """How heavy."""


def program(model: type[BaseModel], **how: Any) -> tuple[typer.Typer, list[Any], list[int]]:
    """A program of one such command, what it was called with, and how often the model was loaded."""
    calls: list[Any] = []
    loaded: list[int] = []

    def load() -> type[BaseModel]:
        loaded.append(1)
        return model

    @options_of(load, **how)
    def command(
        name: str, options: Given = NONE_GIVEN, last: Annotated[int, typer.Option("--last")] = 3
    ) -> None:
        """What it does."""
        calls.append((name, dict(options), last))

    made = typer.Typer(add_completion=False, rich_markup_mode=None)
    made.command("do", cls=ModelCommand)(command)
    made.command("other")(lambda: None)
    return made, calls, loaded


def shown(made: typer.Typer, *words: str) -> str:
    result = CliRunner().invoke(made, [*words])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_options_are_those_of_the_fields() -> None:
    help_text = shown(program(Small)[0], "do", "--help")
    for part in (
        "What it does.",
        "--kind one|two Which kind. [default: one]",
        "How many steps. [at least 1]",
        "Of the whole. [default: 0.25; more than 0, at most 1]",
        "--loud Say it aloud.",
        "--kept / --no-kept Keep it. [default: kept]",
        "How heavy. [default: 0.0]",
        "--last",
    ):
        assert part in help_text, part
    order = [help_text.index(f"--{name}") for name in ("kind", "step-count", "weight", "last")]
    assert order == sorted(order), "in the place of the parameter"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), {}),
        (("--kind", "two"), {"kind": "two"}),
        (("--kind", "none of them"), {"kind": "none of them"}),
        (("--step-count", "0"), {"step_count": 0}),
        (("--share", "0.25"), {"share": 0.25}),
        (("--loud", "--no-kept"), {"loud": True, "kept": False}),
        (("--kept", "--weight", "0"), {"kept": True, "weight": 0.0}),
    ],
)
def test_only_what_is_given_is_passed_on(
    words: tuple[str, ...], expected: dict[str, object]
) -> None:
    """Also where it is the default, or what the model will refuse."""
    made, calls, _ = program(Small)
    shown(made, "do", "it", *words, "--last", "5")
    assert calls == [("it", expected, 5)]


def test_a_field_more_is_an_option_more() -> None:
    larger = create_model("Larger", __base__=Small, depth=(int, 2))
    made, calls, _ = program(larger)
    shown(made, "do", "it", "--depth", "7")
    assert calls == [("it", {"depth": 7}, 3)]


def test_fields_are_chosen_and_options_named() -> None:
    how = {"only": ("kind", "share"), "names": {"kind": "sort"}, "metavars": {"share": "S"}}
    made, calls, _ = program(Small, **how, notes={"share": "0.5 at night"})
    help_text = shown(made, "do", "--help")
    assert "--sort one|two" in help_text
    assert "--share S Of the whole. [default: 0.25; 0.5 at night;" in help_text
    assert "--loud" not in help_text
    shown(made, "do", "it", "--sort", "two")
    assert calls == [("it", {"kind": "two"}, 3)]
    assert "--share" not in shown(program(Small, leave_out=("share",))[0], "do", "--help")


def test_the_model_is_loaded_for_its_own_command_alone() -> None:
    made, _, loaded = program(Small)
    assert "What it does." in shown(made, "--help")
    shown(made, "other")
    assert loaded == []
    shown(made, "do", "it")
    assert loaded == [1]


def test_train_has_every_option_of_a_training() -> None:
    command: Any = get_command(app)
    options = {
        option for parameter in command.commands["train"].params for option in parameter.opts
    }
    for name in TrainingOptions.model_fields:
        assert f"--{name.replace('_', '-')}" in options


def test_the_programs_help_loads_no_model() -> None:
    code = (
        "import sys; sys.argv = ['cleansteer', '--help']\n"
        "from cleansteer.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'pydantic', 'torch', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"

"""The ``cleansteer`` program: its commands, and how errors leave it."""

import os
import sys

import typer

from . import (
    audit,
    benchmark,
    doctor,
    doses,
    export,
    forecast,
    predict,
    registry,
    report,
    schema,
    screen,
    setting,
    settings,
    steer,
    sweep,
    train,
    validate,
    watch,
)
from .models import ModelCommand

app = typer.Typer(
    name="cleansteer",
    help="Tells, before anyone steers, which features of a sparse autoencoder steer cleanly.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it would take [default: ...] for markup
)
app.command("settings")(settings.settings)
app.command("registry")(registry.registry)
app.command("screen")(screen.screen)
app.command("features")(steer.features)
app.command("evaluate")(steer.evaluate)
app.command("doses")(doses.doses)
app.command("validate")(validate.validate)
app.command("fit")(predict.fit)
app.command("rank")(predict.rank)
app.command("allowlist")(predict.allowlist)
app.command("forecast", cls=ModelCommand)(forecast.forecast)
app.command("train", cls=ModelCommand)(train.train)
app.command("sweep", cls=ModelCommand)(sweep.sweep)
app.command("watch")(watch.watch)
app.command("audit")(audit.audit)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("doctor")(doctor.doctor)
app.command("schema")(schema.schema)
files = typer.Typer(help="Settings' files.", rich_markup_mode=None)
files.command("new")(setting.new)
app.add_typer(files, name="setting")
benchmarks = typer.Typer(help="Comparisons across settings.", rich_markup_mode=None)
benchmarks.command("families")(benchmark.families)
benchmarks.command("adapters")(benchmark.adapters)
app.add_typer(benchmarks, name="benchmark")


def show_help(context: typer.Context) -> None:
    """Show what commands there are where none is given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for group in (app, benchmarks, files):
    group.callback(invoke_without_command=True)(show_help)

BAD_INPUT = 2
INTERRUPTED = 130


def main() -> None:
    """Run a command: 0 done, 2 bad input (one line on stderr), 3 done but not to be trusted (with
    --strict), 130 interrupted. Programming errors keep their traceback.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from ..core.caller import called_as
    from ..core.errors import InputError

    try:
        with called_as("cleansteer", *sys.argv[1:]):
            result = app(standalone_mode=False)
    except InputError as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        result = INTERRUPTED
    except Exception as error:
        # The parser's own errors (an unknown option, a wrong value) know how to say it in a line.
        if not hasattr(error, "format_message"):
            raise
        _fail(
            f"{error.format_message().rstrip('.')}{_given(error)}; see `cleansteer COMMAND --help`"
        )
    if result == INTERRUPTED:  # typer itself may make this of Ctrl-C
        sys.stderr.write(
            "interrupted; finished pieces are kept, the same command goes on (train, sweep: with "
            "--resume)\n"
        )
    raise SystemExit(result if isinstance(result, int) else 0)


def _given(error: Exception) -> str:
    cause = getattr(error.__cause__, "errors", None)
    return f", got {cause()[0]['input']!r}" if cause is not None else ""


def _fail(text: str) -> None:
    sys.stderr.write(f"cleansteer: {' '.join(text.split())}\n")
    raise SystemExit(BAD_INPUT)

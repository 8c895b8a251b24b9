"""``python -m cleansteer.benchmarks.behaviour RUN [--features 60] [--out DIR]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ...core.errors import InputError
from ...core.progress import Reporter
from ...core.tables import write_table, write_text
from ...study.entry import load_study
from . import __doc__ as purpose
from .correlations import correlate
from .experiment import Design, Experiment
from .measures import Continuations
from .prompts import NEUTRAL
from .telling import tell


def read_prompts(path: Path | None) -> tuple[str, ...]:
    """A prompt a line, or our own.

    Raises:
        InputError: the file cannot be read.

    """
    if path is None:
        return NEUTRAL
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"prompts {path} cannot be read ({error}); expected UTF-8 text, a prompt a line; give "
            "another file"
        ) from None
    return tuple(line.strip() for line in lines if line.strip())


def behave(run: Path, design: Design, out: Path, reporter: Reporter) -> str:
    """Run the experiment, or go on with it; what it says, as Markdown.

    Raises:
        InputError: the run is not screened, has too few features, or ``out`` is another design's.

    """
    experiment = Experiment(load_study(run), design, out, reporter)
    scores = experiment.scores()
    texts = experiment.texts()
    write_table(out / "texts.parquet", texts)
    continuations = Continuations(texts)
    every = range(len(design.prompts))
    measured, *halves = (continuations.measure(p) for p in (every, every[::2], every[1::2]))
    steered = scores.loc[scores.index.isin(measured.index)]
    measured, *halves = (table.loc[steered.index] for table in (measured, *halves))
    own = texts.drop_duplicates("feature").set_index("feature").loc[steered.index]
    found = correlate(steered, measured, design.seed)
    table = steered.join(measured).join(own[["coefficient", "kl"]])
    write_table(out / "behaviour.parquet", table.reset_index())
    write_table(out / "correlations.parquet", found)
    told = tell(design, table, found, halves, texts)
    write_text(out / "behaviour.md", told)
    return told


def main(words: Sequence[str] | None = None) -> int:
    """The program."""
    design = Design(NEUTRAL)
    parser = argparse.ArgumentParser(
        prog="python -m cleansteer.benchmarks.behaviour", description=purpose
    )
    parser.add_argument("run", type=Path, help="a screened run")
    parser.add_argument("--features", type=int, default=design.n_features)
    parser.add_argument(
        "--prompts", type=Path, help="UTF-8 text, a prompt a line; our own otherwise"
    )
    parser.add_argument("--tokens", type=int, default=design.n_tokens, help="of each text")
    parser.add_argument("--target-kl", type=float, default=design.target_kl, help="nats a token")
    parser.add_argument("--temperature", type=float, default=design.temperature)
    parser.add_argument(
        "--matched-tokens",
        type=int,
        default=design.matched_tokens,
        help="strengths are matched on so many first tokens",
    )
    parser.add_argument("--seed", type=int, default=design.seed)
    parser.add_argument("--out", type=Path, help="where texts and tables are kept; RUN/behaviour")
    asked = parser.parse_args(words)
    try:
        design = Design(
            read_prompts(asked.prompts),
            asked.features,
            asked.tokens,
            asked.target_kl,
            asked.temperature,
            asked.seed,
            asked.matched_tokens,
        )
        told = behave(asked.run, design, asked.out or asked.run / "behaviour", Reporter())
    except InputError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    sys.stdout.write(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())

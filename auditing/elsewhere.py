"""What an adapter changes on reference text: predictions, and what features mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..adapters.encoding import reference_texts
from ..adapters.examples import Examples
from ..adapters.reference import divergence, reference_rows
from ..core.progress import Reporter
from ..core.records.meaning import MeaningRecord
from ..core.tables import write_table
from .drift import most_drifted, told_meaning
from .meaning import Compared, Meanings, first_texts, measure_meaning
from .subject import Subject, options_of


@dataclass(frozen=True)
class Elsewhere:
    """What was measured on reference texts."""

    kl: float
    rows: Sequence[list[int]]
    """The texts that features are compared on."""
    found: Sequence[Meanings]
    tables: Sequence[pd.DataFrame]
    drifted: Sequence[pd.DataFrame]
    """Of each SAE the features that are told one by one."""

    @property
    def named(self) -> list[pd.DataFrame]:
        """Those of them that are features of the adapter's SAEs."""
        pairs = zip(self.found, self.drifted, strict=True)
        return [drifted for found, drifted in pairs if not found.sae.downstream]

    def beside(self, shown: pd.DataFrame) -> pd.DataFrame:
        """Features of the adapter, with what the reference says of them."""
        pairs = zip(self.found, self.tables, strict=True)
        own = pd.concat([table for found, table in pairs if not found.sae.downstream])
        own = own.rename(columns={"before": "mean_before", "after": "mean_after"})
        columns = ["hook", "feature", "mean_before", "mean_after", "overlap"]
        return shown.merge(own[columns], on=["hook", "feature"], how="left")

    def records(
        self, subject: Subject, names: Mapping[tuple[str, int], str]
    ) -> list[MeaningRecord]:
        """What is told of each SAE."""
        return [
            told_meaning(found, table, drifted, self.rows, subject.tokenizer, names)
            for found, table, drifted in zip(self.found, self.tables, self.drifted, strict=True)
        ]

    def write(self, path: Path) -> None:
        """Write what is known of every feature of every SAE (docs/files.md, meaning.parquet)."""
        write_table(path, pd.concat(list(self.tables), ignore_index=True))


def read_reference(subject: Subject, texts: Examples) -> list[list[int]]:
    """Reference texts as tokens, read as the adapter's examples were."""
    options = options_of(subject)
    return reference_rows(
        subject.model.get_base_model(),
        subject.tokenizer,
        reference_texts(texts.rows, subject.tokenizer),
        options.max_length,
        options.bos,
    )


def look_elsewhere(
    subject: Subject,
    rows: Sequence[list[int]],
    saes: Sequence[Compared],
    top: int,
    out: Reporter,
) -> Elsewhere:
    """Measure an adapter on reference texts.

    Args:
        subject: the adapter.
        rows: the texts as tokens.
        saes: those whose features are compared.
        top: how many features of each SAE are told one by one.
        out: shows how far it is.

    """
    kl = divergence(subject.model, rows)[0]
    some = first_texts(rows)
    with out.bar("reference", len(some)) as tick:
        found = measure_meaning(subject, some, saes, tick)
    tables = [each.table() for each in found]
    drifted = [most_drifted(table, top) for table in tables]
    return Elsewhere(kl, some, found, tables, drifted)

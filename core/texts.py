"""Texts of a corpus: hub datasets, local files, docstrings of installed packages."""

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, cast, get_args

from .docstrings import Split, iterate_docstrings
from .errors import InputError
from .hub import cache_first, refusal
from .settings import CorpusSetting, Setting
from .words import is_unicode


def distinct_texts(
    texts: Iterable[str], corpus: CorpusSetting, known: Collection[str] = ()
) -> list[str]:
    """The first ``n_texts`` distinct texts, white space normalised, of ``min_chars`` or more.

    Texts that are ``known`` already are left out.

    Source: docs/protocol.md, Settings (arXiv:2606.08365, section on corpora).
    """
    found: dict[str, None] = {}
    for text in texts:
        text = " ".join(text.split())
        if len(text) >= corpus.min_chars and text not in known:
            found[text] = None
            if len(found) == corpus.n_texts:
                break
    return list(found)


def read_texts(
    setting: Setting,
    corpus: CorpusSetting,
    known: Collection[str] = (),
    given: Iterable[str] | None = None,
) -> list[str]:
    """The distinct texts of a corpus that are not ``known``, in its own order.

    Args:
        setting: whose corpus it is.
        corpus: where the texts come from, and which of them are taken.
        known: texts that are left out.
        given: the texts themselves, where they were given in memory.

    Raises:
        InputError: the corpus cannot be found, is not readable as what it claims to be, or holds
            no text that is long enough.

    """
    if corpus.in_memory is not None:
        source, texts = "given in memory", given
        if texts is None:
            raise InputError(
                f"the texts of setting {setting.name!r} were given in memory; give them again (texts=, "
                "heldout_texts=)"
            )
    elif corpus.path is not None:
        source = str(setting.locate(corpus.path))
        texts = _from_file(Path(source), corpus.field)
    elif corpus.packages is not None:
        source = f"docstrings of {', '.join(corpus.packages)} ({corpus.split})"
        if corpus.split not in get_args(Split):
            raise InputError(
                f"corpus split {corpus.split!r} is not one of {', '.join(get_args(Split))}; change "
                "`split` in the setting"
            )
        docstrings = iterate_docstrings(corpus.packages, cast(Split, corpus.split), setting.seed)
        texts = filter(is_unicode, docstrings)  # source code may write halves of characters
    else:
        assert corpus.dataset is not None
        source = f"{corpus.dataset} ({corpus.split})"
        texts = _from_hub(corpus)
    distinct = distinct_texts(texts, corpus, known)
    if not distinct:
        new = " that is not in [corpus]" if known else ""
        raise InputError(
            f"corpus {source} holds no text of at least {corpus.min_chars} characters{new}; give "
            f"{'another' if known else 'a larger'} corpus or lower `min_chars`"
        )
    return distinct


def _from_file(path: Path, field: str) -> Iterator[str]:
    if not path.is_file():
        raise InputError(f"corpus file {path} does not exist; correct `path` in the setting")
    readers = {".txt": _lines, ".jsonl": _json_lines, ".parquet": _parquet}
    reader = readers.get(path.suffix)
    if reader is None:
        raise InputError(
            f"corpus file {path} has the ending {path.suffix!r}; expected one of "
            f"{', '.join(readers)}; convert it"
        )
    if path.stat().st_size == 0:
        raise InputError(f"corpus file {path} is empty; give a file with texts")
    try:
        yield from reader(path, field)
    except UnicodeDecodeError as error:
        raise InputError(
            f"corpus file {path} is not UTF-8 (byte {error.start}: {error.reason}); convert it to "
            "UTF-8"
        ) from None


def _lines(path: Path, field: str) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as lines:
        yield from lines


def _json_lines(path: Path, field: str) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"corpus file {path}, line {number}"
            try:
                text = json.loads(line)[field]
            except (ValueError, RecursionError, KeyError, TypeError):
                text = ()
            if not isinstance(text, str | None):
                raise InputError(
                    f"{where}: expected a JSON object with a text in {field!r}; mend the line or set "
                    "`field`"
                )
            yield from _text_of(text, where)


def _parquet(path: Path, field: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise InputError(
            f"corpus file {path} is not Parquet ({error}); give a Parquet file"
        ) from None
    with file:
        columns = file.schema_arrow.names
        if field not in columns:
            raise InputError(
                f"corpus file {path} has no column {field!r}, only {', '.join(columns)}; set `field`"
            )
        for batch in file.iter_batches(columns=[field]):
            for value in batch.column(0).to_pylist():
                yield from _text_of(value, f"corpus file {path}: column {field!r}")


def _from_hub(corpus: CorpusSetting) -> Iterator[str]:
    import datasets

    def load() -> Any:
        return datasets.load_dataset(corpus.dataset, corpus.config, split=corpus.split)

    verbosity = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity_error()
    try:
        rows = cache_first(load)
    except Exception as error:
        refused = refusal(error, "dataset", str(corpus.dataset))
        if refused is not None:
            raise InputError(f"{refused}; or correct [corpus] dataset") from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"dataset {corpus.dataset!r} (config {corpus.config!r}, split {corpus.split!r}) cannot be "
            f"loaded: {reason}; correct the name, config or split"
        ) from error
    finally:
        datasets.logging.set_verbosity(verbosity)
    if corpus.field not in rows.column_names:
        raise InputError(
            f"dataset {corpus.dataset!r} has no column {corpus.field!r}, only "
            f"{', '.join(rows.column_names)}; set `field`"
        )
    source = f"dataset {corpus.dataset!r}: column {corpus.field!r}"
    for row in rows:
        yield from _text_of(row[corpus.field], source)


def _text_of(value: object, source: str) -> Iterator[str]:
    """The text of a row, none where it is null."""
    if isinstance(value, str):
        if not is_unicode(value):
            raise InputError(
                f"{source} holds half of a character: {value[:40]!r}; expected Unicode text; correct it"
            )
        yield value
    elif value is not None:
        raise InputError(
            f"{source} holds {type(value).__name__}, expected text; set `field` to a text column"
        )

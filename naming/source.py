"""Descriptions of features, wherever they come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InputError
from ..core.layout import FEATURES, MANIFEST
from ..core.progress import Reporter
from ..core.runs import RunDirectory
from ..core.settings import SaeSetting
from .files import Descriptions, check_file, read_export, read_file
from .measured import read_run
from .neuronpedia import Neuronpedia, listing_of

NEURONPEDIA = "neuronpedia"
"""What is given in the place of a file where Neuronpedia's API is to be asked."""


@dataclass(frozen=True)
class Described:
    """The SAE whose features have descriptions."""

    sae: SaeSetting
    n_features: int
    fingerprint: str
    """Of its tensors, by which a run of the same one is known."""


def dictionary_of(run: RunDirectory) -> Described:
    """The SAE that a run steers; the run has statistics of its features."""
    known = run.manifest.fingerprints
    fingerprint = "" if known is None else known.sae
    return Described(run.setting().sae, len(run.table(FEATURES, ("feature",))), fingerprint)


def read_descriptions(
    given: str | Path, dictionary: Described, wanted: Sequence[int], out: Reporter
) -> dict[int, str]:
    """Descriptions by feature, each in one line.

    Args:
        given: a file (.csv with the columns index and description, or .jsonl with these keys), a
            directory of Neuronpedia's export (``batch-*.jsonl.gz``), ``neuronpedia``: its API, or a
            run's directory: the tokens at which features fire.
        dictionary: whose features they are.
        wanted: the features that matter; of others the API is not asked.
        out: told how many rows were skipped, or why the API gave no more.

    Raises:
        InputError: a file that cannot be read, descriptions of another SAE, or none that is of use; the
            API where Neuronpedia does not list the SAE.

    """
    if str(given) == NEURONPEDIA:
        return _ask(dictionary.sae, wanted, out)
    path = Path(given)
    if (path / MANIFEST).is_file():
        return read_run(path, dictionary.fingerprint)
    listing, n_features = listing_of(dictionary.sae), dictionary.n_features
    found = read_export(path, n_features, listing) if path.is_dir() else read_file(path, n_features)
    _check(found, given, out)
    return found.texts


def check_source(given: str | Path, sae: SaeSetting) -> None:
    """Refuse early what :func:`read_descriptions` would refuse whatever is in it.

    Raises:
        InputError: no such file, another ending, or an SAE that Neuronpedia does not list.

    """
    if str(given) == NEURONPEDIA:
        _listed(sae)
    elif not Path(given).is_dir():
        check_file(Path(given))


def _check(found: Descriptions, given: str | Path, out: Reporter) -> None:
    told = f"{found.n_skipped} of {found.n_rows} rows"
    if not found.texts:
        why = f" ({found.first_problem})" if found.n_skipped else ""
        raise InputError(
            f"--descriptions {given} describes no feature{why}; expected rows of index and "
            "description; fill it"
        )
    if 2 * found.n_skipped > found.n_rows:
        raise InputError(
            f"--descriptions {given}: {told} describe no feature of this SAE, the first: "
            f"{found.first_problem}; expected the descriptions of this SAE; correct it"
        )
    if found.n_skipped:
        out.warn(f"--descriptions {given}: {told} skipped, the first: {found.first_problem}")


def _ask(sae: SaeSetting, wanted: Sequence[int], out: Reporter) -> dict[int, str]:
    site = Neuronpedia(_listed(sae))
    with out.bar("Neuronpedia", len(wanted)) as tick:
        found, reason = site.describe(wanted, tick)
    if reason is not None:
        out.warn(
            f"Neuronpedia described {len(found)} of {len(wanted)} features: {reason}; going on without "
            "the others"
        )
    return found


def _listed(sae: SaeSetting) -> str:
    listing = listing_of(sae)
    if listing is None:
        raise InputError(
            f"--descriptions {NEURONPEDIA}: SAELens' list names no place on Neuronpedia for SAE "
            f"{sae.label}; expected a file of descriptions; give one"
        )
    return listing

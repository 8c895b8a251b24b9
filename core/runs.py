"""Run directories: the files of one setting's run, and the manifest that says what they are."""

import importlib.metadata
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TypeVar

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .caller import current_call
from .errors import InputError
from .layout import MANIFEST, SCREENING
from .records import CallEntry, Manifest, Screening
from .records.record import Versioned
from .settings import Setting
from .tables import read_table, write_atomically, write_table

AnyVersioned = TypeVar("AnyVersioned", bound=Versioned)

SETTING_MARK = "cleansteer_setting"
"""Where a run's tables hold their setting's fingerprint: an attribute of the DataFrame, which Parquet
keeps."""
_LIBRARIES = (
    "cleansteer",
    "torch",
    "transformers",
    "transformer-lens",
    "sae-lens",
    "lightgbm",
    "scikit-learn",
    "numpy",
    "pandas",
    "scipy",
)


class RunDirectory:
    """The directory of one run; pieces are written whole, and read back instead of recomputed."""

    def __init__(self, path: Path, manifest: Manifest, replaces: bool = False) -> None:
        self.path = path
        self.manifest = manifest
        self._replaces = replaces

    @classmethod
    def open(
        cls, path: Path, setting: Setting, overwrite: bool = False, arguments: Iterable[str] = ()
    ) -> Self:
        """The run directory of a setting: an existing one of the same setting, or a new one.

        Nothing is written, and with ``overwrite`` nothing is deleted, until the first piece is.
        ``arguments`` are the keys of [steering] that the setting's file says otherwise.

        Raises:
            InputError: the path holds a run of another setting (and not ``overwrite``), or
                something that is no run.

        """
        replaces = False
        if path.exists():
            if not path.is_dir():
                raise InputError(f"run directory {path} is a file; give another --run")
            if any(path.iterdir()):
                if not (path / MANIFEST).is_file():
                    raise InputError(
                        f"directory {path} is not empty and holds no run ({MANIFEST} is missing); "
                        "give another --run"
                    )
                if not overwrite:
                    manifest = Manifest.read(path / MANIFEST)
                    cls._refuse_other(path, manifest, setting)
                    return cls(path, manifest)
                replaces = True
        manifest = Manifest(
            setting=setting,
            setting_fingerprint=setting.fingerprint,
            setting_folder=str(setting.folder),
            versions=_versions(),
            arguments=sorted(arguments),
        )
        return cls(path, manifest, replaces)

    @staticmethod
    def _refuse_other(path: Path, manifest: Manifest, setting: Setting) -> None:
        if manifest.setting_fingerprint != setting.fingerprint:
            differences = setting.differences(manifest.setting)
            shown = "; ".join(differences[:5]) or "saved fingerprint does not fit"
            raise InputError(
                f"run {path} is of another setting ({shown}); give another --run, or --overwrite"
            )

    @classmethod
    def existing(cls, path: Path) -> Self:
        """A run that must be there.

        Raises:
            InputError: it is not, or its manifest does not fit this version.

        """
        if not (path / MANIFEST).is_file():
            raise InputError(
                f"{path} holds no run ({MANIFEST} is missing); give the directory that `cleansteer "
                "screen` wrote"
            )
        return cls(path, Manifest.read(path / MANIFEST))

    def setting(self) -> Setting:
        """The setting that the run was made with."""
        return self.manifest.setting.placed_in(Path(self.manifest.setting_folder))

    def update(self, **entries: object) -> None:
        """Change entries of the manifest (those of a mapping are added to it), and write it."""
        self._make_room()
        for name, value in entries.items():
            known = getattr(self.manifest, name)
            if isinstance(value, Mapping) and isinstance(known, Mapping):
                entries[name] = {**known, **value}
        self.manifest = self.manifest.model_copy(update=entries)
        self.manifest.write(self.path / MANIFEST)

    def record_call(self) -> None:
        """Add what called: the command line, or the text of a call from Python."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.update(commands=[*self.manifest.commands, CallEntry(command=current_call(), at=now)])

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record how long a stage took."""
        start = time.perf_counter()
        yield
        self.update(seconds={stage: round(time.perf_counter() - start, 2)})

    def _make_room(self) -> None:
        if self._replaces:
            shutil.rmtree(self.path)
            self._replaces = False

    def copy_to(self, target: Path) -> Path:
        """Copy the whole directory; returns where.

        Raises:
            InputError: something lies there already.

        """
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InputError(f"{target} is not empty; give another directory")
        shutil.copytree(self.path, target, dirs_exist_ok=True)
        return target

    def has(self, name: str) -> bool:
        """Whether a piece is there."""
        return not self._replaces and (self.path / name).is_file()

    def table(self, name: str, columns: tuple[str, ...] = ()) -> pd.DataFrame:
        """Read a table.

        Raises:
            InputError: it is missing, damaged, lacks a column, or was copied here from a run of
                another setting.

        """
        table = read_table(self.path / name, columns)
        ours = self.manifest.setting_fingerprint
        theirs = table.attrs.get(SETTING_MARK, ours)
        if theirs != ours:
            raise InputError(
                f"table {self.path / name} was measured in another setting (fingerprint {theirs}, this "
                f"run's is {ours}); delete it, and the command measures it anew"
            )
        return table

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write a table."""
        self._make_room()
        marked = table.copy(deep=False)
        marked.attrs = {SETTING_MARK: self.manifest.setting_fingerprint}
        write_table(self.path / name, marked)

    def read(self, name: str, record: type[AnyVersioned]) -> AnyVersioned:
        """Read a record.

        Raises:
            InputError: it is missing, or of another format.

        """
        return record.read(self.path / name)

    def screening(self) -> Screening:
        """What the run's screening concluded.

        Raises:
            InputError: the record is missing, of another format, or of another setting than the run.

        """
        screening = self.read(SCREENING, Screening)
        ours = self.manifest.setting_fingerprint
        if screening.setting_fingerprint != ours:
            raise InputError(
                f"{self.path / SCREENING} is of another setting (fingerprint "
                f"{screening.setting_fingerprint!r}, this run's is {ours!r}); delete it and screen anew"
            )
        return screening

    def write(self, name: str, record: Versioned) -> None:
        """Write a record."""
        self._make_room()
        record.write(self.path / name)

    def tokens(self, name: str) -> torch.Tensor:
        """Read contexts, ``[context, token]``.

        Raises:
            InputError: the file is broken.

        """
        try:
            return load_file(self.path / name)["tokens"].long()
        except (SafetensorError, KeyError, OSError) as error:
            raise InputError(
                f"contexts {self.path / name} are broken ({error}); delete the file and run again"
            ) from None

    def write_tokens(self, name: str, tokens: torch.Tensor) -> None:
        """Write contexts."""
        self._make_room()
        tensors = {"tokens": tokens.int()}
        write_atomically(self.path / name, lambda path: save_file(tensors, path))


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = "not installed"
    return versions

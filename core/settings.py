"""Settings: what to screen and how, read from a TOML file.

Every field is documented once, here; ``cleansteer settings --fields`` prints these texts.
"""

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from .choices import Mode, Sampling
from .errors import InputError

_SOURCE_KEYS = {"dataset", "config", "split", "path", "packages"}
_IN_MEMORY = "in_memory"


class SettingSection(BaseModel):
    """Base of every section: frozen, unknown keys refused, fields documented by docstrings."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


class SourceSection(SettingSection):
    """A section that names something that a caller of the Python face may hand over instead."""

    in_memory: str | None = None
    """Fingerprint of the object that was given in Python; written by cleansteer, not by people."""

    @model_serializer(mode="wrap")
    def _as_in_files(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = serialize(self)
        if data.get(_IN_MEMORY) is None:
            data.pop(_IN_MEMORY, None)
        return data


class ModelSetting(SourceSection):
    """The language model."""

    name: str
    """Hub id, or a local directory (relative to the setting's file)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the forward pass."""
    processing: Literal["default", "none"] = "default"
    """`default`: the unembedding as TransformerLens processes it (final norm folded in, centred
    over the vocabulary unless logits are soft-capped); `none`: as loaded."""


class SaeSetting(SourceSection):
    """A sparse autoencoder in SAELens' format: a release and id, or a local directory."""

    release: str | None = None
    """SAELens release, or the hub repository it lies in."""
    id: str | None = None
    """Id of the SAE within the release."""
    path: str | None = None
    """Local directory with cfg.json and sae_weights.safetensors (relative to the setting's
    file)."""
    hook: str | None = None
    """Hook point that the SAE reads, where it is not the one its metadata names."""
    centred: Literal[True, False, "auto"] = "auto"
    """Whether the SAE reads the residual stream minus its mean over the model dimension; `auto`
    follows the SAE's metadata."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.path, self.release, self.in_memory)) != 1:
            raise ValueError("expected either `path`, or `release` with `id`")
        if (self.release is None) != (self.id is None):
            raise ValueError("`release` and `id` belong together")
        return self

    @property
    def label(self) -> str:
        """Where the SAE comes from, for people."""
        if self.in_memory is not None:
            return "given in memory"
        return self.path if self.path is not None else f"{self.release}/{self.id}"


class CorpusSetting(SourceSection):
    """The texts, and how contexts are cut from them."""

    dataset: str | None = None
    """Hub dataset id."""
    config: str | None = None
    """Configuration of the hub dataset."""
    split: str = "train"
    """Split of the hub dataset (slices like `train[:2%]` work), or of the docstrings."""
    path: str | None = None
    """Local .txt (a document a line), .jsonl (field `field`) or .parquet file (column `field`),
    relative to the setting's file."""
    packages: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    """Installed Python packages whose docstrings are the texts; `stdlib` is the standard
    library."""
    field: str = "text"
    """Field or column that holds the text."""
    contexts: Literal["stream", "text-start"] = "stream"
    """`stream`: texts joined by EOS and cut; `text-start`: the first tokens of every text that is
    long enough."""
    n_texts: Annotated[int, Field(ge=1)] = 8000
    """Most distinct texts taken."""
    min_chars: Annotated[int, Field(ge=1)] = 100
    """Texts shorter than this (characters, white space normalised) are left out."""
    n_contexts: Annotated[int, Field(ge=2)] = 2048
    """How many contexts are cut."""
    n_evaluated: Annotated[int, Field(ge=2)] | None = None
    """In how many of the [heldout_corpus] contexts, the first ones, the fresh check steers; None:
    all."""
    context_length: Annotated[int, Field(ge=3)] = 48
    """Tokens in a context, BOS included."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = ("dataset", "path", "packages", _IN_MEMORY)
        given = [k for k in sources if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of `dataset`, `path`, `packages`, got {given or 'none'}"
            )
        return self

    @model_validator(mode="after")
    def _evaluated(self) -> Self:
        if self.n_evaluated is not None and self.n_evaluated > self.n_contexts:
            raise ValueError(
                f"`n_evaluated` = {self.n_evaluated} is more than `n_contexts` = {self.n_contexts}; "
                "expected at most as many"
            )
        return self


class SteeringSetting(SettingSection):
    """How features are steered and what is read."""

    n_features: Annotated[int, Field(ge=1)] = 300
    """How many features are labelled by steering."""
    sample: Sampling = "frequency-spread"
    """How they are taken from the eligible ones: at even ranks by frequency (the paper); a seeded
    random draw (the replication); or in two rounds, half of them (30 at least) at even ranks and
    the rest where a predictor fitted on that half is least sure."""
    contexts_per_type: Annotated[int, Field(ge=2)] = 16
    """Contexts of each of the types top, low and random; with `reliability`, the fewest."""
    reliability: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None = None
    """How well clean_score, stability_abs and collateral_per_effect have to repeat themselves
    (Spearman over features between two halves of each feature's contexts): contexts are added until
    all three do, in a pilot of 100 features; None: contexts_per_type are taken as they are."""
    most_contexts_per_type: Annotated[int, Field(ge=2)] | None = None
    """Most contexts of each type that `reliability` may add up to, as far as there are contexts;
    None: 4 x contexts_per_type."""
    alpha: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    """Strength of mode `add`, in units of the global value c; not zero. The others take none."""
    mode: Mode = "add"
    """`add` alpha c; `clamp_global` to c; `clamp_q95` to the feature's own 95 % quantile."""
    panel_size: Annotated[int, Field(ge=1)] = 2048
    """Downstream features in which collateral is counted."""
    crowding_top_k: Annotated[int, Field(ge=1)] = 20
    """Neighbours in crowding_topk_mean_abs_cos."""
    coactivation_panel_size: Annotated[int, Field(ge=1)] = 2048
    """Features with which joint firing is counted."""
    n_controls: Annotated[int, Field(ge=2)] = 200
    """Most labelled features that are compared with a random direction of the same norm."""
    vocabulary_labels: bool = True
    """Whether the labels that need every logit are measured (KL, counts, concentration)."""
    reconstruction_labels: bool = True
    """Whether resid_explained is measured (needs the whole downstream dictionary)."""

    @model_validator(mode="after")
    def _budget(self) -> Self:
        most = self.most_contexts_per_type
        if most is not None and self.reliability is None:
            raise ValueError(
                f"`most_contexts_per_type` = {most} is the budget of `reliability`, which is not given; "
                "expected both (--reliability R --most-contexts M), or neither"
            )
        if most is not None and most < self.contexts_per_type:
            raise ValueError(
                f"`most_contexts_per_type` = {most} (--most-contexts) is less than "
                f"`contexts_per_type` = {self.contexts_per_type}; expected at least as many"
            )
        return self

    @model_validator(mode="after")
    def _strength(self) -> Self:
        if self.alpha == 0:
            raise ValueError("`alpha` is 0, which steers nothing; expected a strength, such as 1.0")
        if self.mode != "add" and self.alpha != 1.0:
            raise ValueError(
                f"`alpha` is {self.alpha:g} with `mode` {self.mode!r}, which clamps to a value and takes "
                "no strength; leave `alpha` out, or use mode 'add'"
            )
        return self


class Setting(SettingSection):
    """Everything that determines a run's tables."""

    name: str
    """Name of the setting, and of its run directory."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random choice."""
    model: ModelSetting
    """The language model."""
    sae: SaeSetting
    """The SAE whose features are steered."""
    downstream_sae: SaeSetting
    """The SAE in which collateral is read; its hook lies at or after the first one's."""
    corpus: CorpusSetting
    """Contexts for statistics and labels."""
    heldout_corpus: CorpusSetting
    """Fresh contexts for the held-out screening; keys left out are as in [corpus]."""
    steering: SteeringSetting = SteeringSetting()
    """Steering and its labels."""

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def folder(self) -> Path:
        """The folder that the setting's relative paths start from."""
        return self._folder

    def placed_in(self, folder: Path) -> "Setting":
        """A copy whose relative paths start from ``folder``."""
        copy = self.model_copy()
        copy._folder = folder
        return copy

    def locate(self, path: str) -> Path:
        """A path of the setting, relative to the folder of its file."""
        return self._folder / path

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON of every field, as 16 hexadecimal digits."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def replace(self, section: str, **changes: object) -> "Setting":
        """A copy with keys of one section changed, validated as a file would be.

        Raises:
            InputError: a changed value is not allowed.

        """
        data = self.model_dump()
        data[section].update(changes)
        source = f"setting {self.name!r}"
        return parse_setting(data, source, "give another value").placed_in(self._folder)

    def differences(self, other: "Setting") -> list[str]:
        """``key: theirs -> ours`` for every field in which another setting differs."""
        ours, theirs = (_flatten(s.model_dump(mode="json")) for s in (self, other))
        return [
            f"{key}: {theirs.get(key)!r} -> {ours.get(key)!r}"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]


def _flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def parse_setting(
    data: dict[str, Any], source: str, remedy: str = "change it in the file"
) -> Setting:
    """Validate the contents of a setting's file; ``remedy`` ends the line about a wrong value.

    Raises:
        InputError: with one line that names the first offending key, its value and what was
            expected.

    """
    try:
        return Setting.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "(whole file)"
        known = _known_keys(first["loc"]) if first["type"] == "extra_forbidden" else None
        if known is not None:
            raise InputError(
                f"{source}: unknown key {key!r}; expected one of: {', '.join(known)}; remove or "
                "rename it"
            ) from None
        if first["type"] == "missing":
            raise InputError(f"{source}: key {key!r} is missing; add it") from None
        given = "" if first["type"] == "value_error" else f" = {first['input']!r}"
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{source}: {key}{given}: {message}; {remedy}") from None


def _known_keys(location: tuple[int | str, ...]) -> list[str] | None:
    section: Any = Setting
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    return [key for key in section.model_fields if key != _IN_MEMORY]


def read_setting(path: Path) -> Setting:
    """Read a setting from a TOML file.

    Keys missing in ``[heldout_corpus]`` are taken from ``[corpus]``; naming another source of
    texts (`dataset`, `path`, `packages`) replaces the source of ``[corpus]``.

    Raises:
        InputError: the file is missing, not UTF-8, not TOML, or does not fit the schema.

    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"setting file {path} does not exist; give the path of a .toml file"
        ) from None
    except IsADirectoryError:
        raise InputError(f"setting {path} is a directory; expected a .toml file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"setting file {path} is not valid TOML: {error}; mend that place"
        ) from None
    for section, values in data.items():
        if isinstance(values, dict) and _IN_MEMORY in values:
            raise InputError(
                f"{path}: {section}.{_IN_MEMORY} is for objects that are given in Python; name a file, a "
                "hub id or a directory instead"
            )
    corpus, heldout = data.get("corpus"), data.setdefault("heldout_corpus", {})
    if isinstance(corpus, dict) and isinstance(heldout, dict):
        dropped = _SOURCE_KEYS if not {"dataset", "path", "packages"}.isdisjoint(heldout) else set()
        inherited = {key: value for key, value in corpus.items() if key not in dropped}
        data["heldout_corpus"] = inherited | heldout
    return parse_setting(data, source=str(path)).placed_in(path.resolve().parent)


def field_texts() -> dict[str, dict[str, str]]:
    """Meaning and default of every key of a setting's file, by ``section.key``."""
    texts: dict[str, dict[str, str]] = {}
    for name, field in Setting.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, SettingSection):
            for key, inner in section.model_fields.items():
                if key != _IN_MEMORY:
                    texts[f"{name}.{key}"] = _field_text(inner)
        else:
            texts[name] = _field_text(field)
    return texts


def _field_text(field: FieldInfo) -> dict[str, str]:
    default = "required" if field.is_required() else repr(field.default)
    return {"default": default, "meaning": " ".join((field.description or "").split())}

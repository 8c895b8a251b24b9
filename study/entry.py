"""How a study begins: from a setting, from objects in memory, or from a directory."""

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..core.caller import called_as, spell_call
from ..core.choices import All, Mode, Sampling
from ..core.device import check_device
from ..core.errors import InputError
from ..core.given import Given, dtype_name, fingerprint_texts
from ..core.layout import MANIFEST
from ..core.networks import fingerprint_tensors
from ..core.progress import Reporter
from ..core.runs import RunDirectory
from ..core.settings import Setting, parse_setting
from ..naming.source import check_source
from .allowing import DEFAULT_TOP
from .catalogue import bundled, load_setting
from .inputs import Inputs
from .request import steering_changes
from .study import Study

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SettingLike = str | PathLike[str] | Setting
RUNS = Path("runs")
"""Folder of the run directories that the command line makes."""
_LABELLING = ("n_features", "sample", "reliability", "most_contexts_per_type")
"""Keys of [steering] that ``screen`` has arguments for."""


def screen(
    setting: SettingLike | None = None,
    *,
    model: "PreTrainedModel | None" = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    sae: "SAE[Any] | None" = None,
    downstream_sae: "SAE[Any] | None" = None,
    texts: Sequence[str] | None = None,
    heldout_texts: Sequence[str] | None = None,
    changes: Mapping[str, object] | None = None,
    labels: int | All | None = None,
    strategy: Sampling | None = None,
    reliability: float | None = None,
    most_contexts: int | None = None,
    mode: Mode | None = None,
    target_kl: float | None = None,
    run: str | PathLike[str] | None = None,
    top: int = DEFAULT_TOP,
    descriptions: str | PathLike[str] | None = None,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Study:
    """Rank all features by how cleanly they will steer, and check it on fresh contexts.

    Measures every feature's statistics, steers a sample, fits the predictor, ranks the rest, and
    steers predicted-clean, predicted-messy and random features on contexts that were not used
    before. Takes a setting, objects in memory, or a setting of which some parts are given in memory.

    Args:
        setting: name of a bundled setting, path of a TOML file, or a :class:`Setting`.
        model: a Hugging Face causal language model. It stays as it is: cleansteer works on a copy
            that shares its weights.
        tokenizer: the model's tokenizer.
        sae: the SAE whose features are steered, an object of SAELens.
        downstream_sae: the SAE in which collateral is read; its hook lies at or after the first's.
        texts: for statistics and labels.
        heldout_texts: for the fresh check; texts that are among ``texts`` are left out.
        changes: keys of the setting by ``section.key``, such as ``{"corpus.n_contexts": 512,
            "steering.alpha": 2.0, "sae.hook": "blocks.8.hook_resid_pre", "seed": 1}``.
        labels: how many features are labelled by steering them; 0: none, and linear response, which
            is measured then, ranks them all; ``"all"``: every feature of the dictionary, so that the
            ranking is a measurement.
        strategy: which: at even ranks by frequency, drawn at random, or half of them so and the rest
            where a predictor fitted on that half is least sure.
        reliability: add contexts per label until the labels' split-half reliability reaches this.
        most_contexts: most contexts of each type that ``reliability`` may take.
        mode: of steering.
        target_kl: KL from the clean predictions, in nats, that mode ``matched`` brings every feature to;
            means that mode where none is given.
        run: directory that keeps everything, and in which an interrupted screening goes on; None: a
            temporary one that goes with the study.
        top: how many features the allowlist in the directory takes.
        descriptions: of the features, for the report: .csv with the columns index and description,
            .jsonl with these keys, a directory of Neuronpedia's export, or ``neuronpedia``: its API.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; None: the given model's own, or the CPU.
        overwrite: delete the directory's earlier run first.
        progress: False shows nothing; warnings then come as Python's.

    Raises:
        InputError: the setting, an object or a directory cannot be used.
        TypeError: an object is of another type than is said here.

    """
    call = spell_call("screen", *([] if setting is None else [setting]), labels=labels)
    study = open_study(
        setting,
        model=model,
        tokenizer=tokenizer,
        sae=sae,
        downstream_sae=downstream_sae,
        texts=texts,
        heldout_texts=heldout_texts,
        changes=changes,
        labels=labels,
        strategy=strategy,
        reliability=reliability,
        most_contexts=most_contexts,
        mode=mode,
        target_kl=target_kl,
        run=run,
        device=device,
        overwrite=overwrite,
        progress=progress,
        anew=True,
    )
    if descriptions is not None:
        check_source(fspath(descriptions), study.setting.sae)
    with called_as(call):
        study.screen(top)
        if descriptions is not None:
            study.report(descriptions=descriptions)
    return study


def open_study(
    setting: SettingLike | None = None,
    *,
    model: "PreTrainedModel | None" = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    sae: "SAE[Any] | None" = None,
    downstream_sae: "SAE[Any] | None" = None,
    texts: Sequence[str] | None = None,
    heldout_texts: Sequence[str] | None = None,
    changes: Mapping[str, object] | None = None,
    labels: int | All | None = None,
    strategy: Sampling | None = None,
    reliability: float | None = None,
    most_contexts: int | None = None,
    mode: Mode | None = None,
    target_kl: float | None = None,
    run: str | PathLike[str] | None = None,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
    anew: bool = False,
) -> Study:
    """A study that has not measured anything yet, or what its directory holds already.

    The arguments are those of :func:`screen`.

    Args:
        anew: False: how an earlier run in the directory spent its labels is kept, where no argument
            says otherwise.

    Raises:
        InputError: the setting, an object or a directory cannot be used.
        TypeError: an object is of another type than is said there.

    """
    given = Given(model, tokenizer, sae, downstream_sae, texts, heldout_texts)
    given.check()
    if labels in (0, "all") and strategy is not None:
        raise InputError(
            f"--strategy {strategy} says which features are labelled, and --labels {labels} labels "
            f"{'none' if labels == 0 else 'every one'}; leave one of them out"
        )
    chosen = _setting_of(setting, given, _with_response(dict(changes or {}), labels))
    spending = dict(zip(_LABELLING, (labels, strategy, reliability, most_contexts), strict=True))
    spent: dict[str, object] = {k: value for k, value in spending.items() if value is not None}
    spent |= steering_changes(chosen, mode, target_kl=target_kl)
    path = None if run is None else Path(run)
    if spent:
        chosen = chosen.replace("steering", **spent)
    elif path is not None and not anew and not overwrite:
        chosen = _spent_as_in(path, chosen)
    temporary = None
    if path is None:
        temporary = TemporaryDirectory(prefix="cleansteer-")
        path = Path(temporary.name)
    directory = RunDirectory.open(path, chosen, overwrite, spent)
    if device is not None:
        check_device(device)
    reporter = Reporter(quiet=not progress)
    return Study(chosen, directory, Inputs(chosen, device, given), reporter, temporary)


def load_study(
    run: str | PathLike[str],
    *,
    model: "PreTrainedModel | None" = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    sae: "SAE[Any] | None" = None,
    downstream_sae: "SAE[Any] | None" = None,
    texts: Sequence[str] | None = None,
    heldout_texts: Sequence[str] | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Study:
    """A study from the directory of an earlier one.

    Tables, verdict, allowlists and report need nothing else. To measure more of a study whose model,
    SAEs or texts were given in memory, give them again; they are checked to be the same.

    Raises:
        InputError: the directory holds no run, or objects are others than before.
        TypeError: an object is of another type than :func:`screen` takes.

    """
    given = Given(model, tokenizer, sae, downstream_sae, texts, heldout_texts)
    given.check()
    directory = RunDirectory.existing(Path(run))
    setting = _relocated(directory.setting())
    for name, section, now in _fingerprints(given):
        before = getattr(setting, section).in_memory
        if before is not None and before != now:
            raise InputError(
                f"run {directory.path} was made with another {name} (fingerprint {before}, now {now}); "
                "give the same, or make a new study"
            )
    if device is not None:
        check_device(device)
    reporter = Reporter(quiet=not progress)
    return Study(setting, directory, Inputs(setting, device, given), reporter)


def _with_response(changes: dict[str, object], labels: int | All | None) -> dict[str, object]:
    """The changes, with linear response asked for where no feature is to be labelled."""
    asked = changes.get("steering.n_features") if labels is None else labels
    return {"steering.response": True} | changes if asked == 0 else changes


def _relocated(setting: Setting) -> Setting:
    """A bundled setting lies where this installation has it, wherever the run was made."""
    if setting.name in bundled():
        here = load_setting(setting.name)
        sections = ("model", "sae", "downstream_sae", "corpus", "heldout_corpus")
        if all(getattr(here, name) == getattr(setting, name) for name in sections):
            return setting.placed_in(here.folder)
    return setting


def _spent_as_in(path: Path, setting: Setting) -> Setting:
    """The setting, with labels spent as in the run that lies there, if one does."""
    if not (path / MANIFEST).is_file():
        return setting
    run = RunDirectory.existing(path)
    keys = {*_LABELLING, *run.manifest.arguments}
    kept = run.setting().steering.model_dump(include=keys)
    if kept["n_features"] == 0:
        kept["response"] = True
    return setting.replace("steering", **kept)


def _fingerprints(given: Given) -> list[tuple[str, str, str]]:
    """Name, section of the setting, and fingerprint of everything that was given."""
    tensors = {
        "model": None if given.model is None else dict(given.model.named_parameters()),
        "sae": None if given.sae is None else dict(given.sae.state_dict()),
        "downstream_sae": None
        if given.downstream_sae is None
        else dict(given.downstream_sae.state_dict()),
    }
    known = [(n, n, fingerprint_tensors(t)) for n, t in tensors.items() if t is not None]
    for name, section in (("texts", "corpus"), ("heldout_texts", "heldout_corpus")):
        texts = getattr(given, name)
        if texts is not None:
            known.append((name, section, fingerprint_texts(texts)))
    return known


_PLAIN_KEYS = ("name", "seed")


def _setting_of(setting: SettingLike | None, given: Given, changes: dict[str, object]) -> Setting:
    """The setting, with sections replaced by what was given and keys changed.

    Raises:
        InputError: something that a study needs is neither named nor given, or a change is wrong.

    """
    if setting is None:
        missing = [name for name, value in vars(given).items() if value is None]
        if missing:
            raise InputError(
                f"{', '.join(f'{name}=' for name in missing)} missing; expected a setting, or model=, "
                "tokenizer=, sae=, downstream_sae=, texts= and heldout_texts=; give them"
            )
        data: dict[str, Any] = {"name": "in-memory", "corpus": {}, "heldout_corpus": {}}
        folder = Path.cwd()
    else:
        chosen = load_setting(setting)
        if not given.names and not changes:
            return chosen
        data, folder = chosen.model_dump(), chosen.folder
    for name, section, fingerprint in _fingerprints(given):
        data[section] = _given_section(name, given, data.get(section, {})) | {
            "in_memory": fingerprint
        }
    if setting is None:
        data["heldout_corpus"] = {"n_contexts": 512} | data["heldout_corpus"]
    _apply(changes, data)
    source = "arguments" if setting is None else f"setting {data['name']!r}"
    return parse_setting(data, source, "give another value").placed_in(folder)


def _given_section(name: str, given: Given, section: Mapping[str, Any]) -> dict[str, Any]:
    """A section of which the source was given: what else it says is kept."""
    if name == "model":
        assert given.model is not None
        label = given.model.config.name_or_path or given.model.config.model_type
        kept = {key: section[key] for key in ("processing",) if key in section}
        return {"name": str(label), "dtype": dtype_name(given.model), **kept}
    dropped = ("release", "id", "path", "dataset", "config", "split", "packages", "hook")
    return {key: value for key, value in section.items() if key not in dropped}


def _apply(changes: Mapping[str, object], data: dict[str, Any]) -> None:
    for key, value in changes.items():
        section, dot, name = key.partition(".")
        if not dot:
            if key not in _PLAIN_KEYS:
                raise InputError(
                    f"changes: {key!r} is not understood; expected {', '.join(_PLAIN_KEYS)}, or "
                    "section.key such as 'corpus.n_contexts'; correct it"
                )
            data[key] = value
        else:
            data.setdefault(section, {})[name] = value

"""What ``cleansteer audit`` shows in a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ..core.records.audit import AuditedFeature, AuditRecord
from ..core.records.form import FormRecord
from ..core.records.meaning import MeaningGroup, MeaningRecord
from ..core.records.pulled import PulledRecord
from ..core.records.tuned import TunedRecord
from .figures import named_table, short_hook

_DRIFTED = 5
"""Drifted features of each SAE that are shown."""


def print_audit(console: Console, found: AuditRecord) -> None:
    """Say what an audit found."""
    silent = "" if not found.n_silent else f", {found.n_silent} of them silent on the data"
    say(
        console,
        f"{found.component} on {found.n_features} features: {found.n_changed} changed{silent}",
    )
    if found.loss_with is not None and found.loss_without is not None:
        say(
            console,
            f"Loss on {found.n_tokens} tokens: {found.loss_without:.4f} without, "
            f"{found.loss_with:.4f} with the adapter",
        )
    if found.kl is not None:
        say(console, f"KL on the reference: {found.kl:.4g} nats a token")
    if found.meaning:
        _print_meaning(console, found.meaning)
    if found.form is not None:
        _print_form(console, found.form)
    if found.features:
        console.print(_table(found))
    if found.agreement is not None:
        agreed = found.agreement
        say(
            console,
            f"Attribution against switching {agreed.n} features off one by one: Spearman "
            f"{agreed.spearman:.2f} [{agreed.low:.2f}, {agreed.high:.2f}]",
        )
    for each in found.meaning or ():
        _print_drifted(console, each)
    for pair in (found.pairs or ())[:10]:
        say(
            console,
            f"{pair.source} -> {pair.target}: {pair.effect:+.4g} in the mean ({pair.weight:+.4g} for a "
            "unit of activation)",
        )


def _table(found: AuditRecord) -> Table:
    several = len({each.hook for each in found.features}) > 1
    ordered = {"latent": {"|z' - z|": "latent"}, "residual": {"in the stream": "residual"}}
    columns = {
        "change": "parameters",
        **ordered.get(found.order, {}),
        "edited": "edited",
        "forecast": "attribution",
        "measured": "switched_off",
        "form": "form",
        "kept": "overlap",
        "clean": "predicted_clean_score",
    }
    kept = {
        title: name
        for title, name in columns.items()
        if any(getattr(each, name) is not None for each in found.features)
    }
    rows = [
        (
            *([short_hook(each.hook)] if several else []),
            str(each.feature),
            *(_cell(each, name) for name in kept.values()),
        )
        for each in found.features
    ]
    titles = (*(["hook"] if several else []), "feature", *kept)
    names = [_name(each) for each in found.features]
    return named_table(f"Changed features, by {found.order}", titles, rows, names)


def _print_form(console: Console, found: FormRecord) -> None:
    shares = []
    for share, interval in (
        (found.edit.form, found.edit_interval),
        (found.dictionary.form, found.dictionary_interval),
    ):
        ends = "" if interval is None else f" [{interval.low:.0%}, {interval.high:.0%}]"
        shares.append(f"{share:.0%}{ends}")
    most = "" if found.covered > 0.995 else f", of the {found.covered:.0%} that can be told"
    say(
        console,
        f"Form (layout, punctuation, function words): {shares[0]} of the edit{most}; {shares[1]} of the "
        "dictionary's activity",
    )


def _print_meaning(console: Console, found: Sequence[MeaningRecord]) -> None:
    first = found[0]
    say(
        console,
        f"Meaning on {first.n_tokens} tokens of {first.n_texts} texts, by the {first.contexts} strongest "
        "contexts of each feature before and after:",
    )
    for each in found:
        named = {"edited": each.edited, "others": each.others}
        groups = {"downstream": each.others} if each.downstream else named
        for name, group in groups.items():
            if group is not None:
                say(console, f"  {group.n} {name} at {each.hook}: {_kept(group)}")


def _kept(group: MeaningGroup) -> str:
    if group.overlap is None:
        return "none fires in enough texts to be judged"
    shift = "" if group.shift is None else f"; means moved by {group.shift:.1%}"
    return (
        f"{group.overlap:.1%} of contexts kept ({group.n_judged} judged, {group.n_drifted} keep under "
        f"half){shift}"
    )


def _print_drifted(console: Console, found: MeaningRecord) -> None:
    if not found.drifted:
        return
    whose = "downstream" if found.downstream else "other" if found.others else "edited"
    rows = [
        (
            str(each.feature),
            f"{each.overlap:.0%}",
            f"{each.before:.4f}",
            f"{each.after:.4f}",
        )
        for each in found.drifted[:_DRIFTED]
    ]
    titles = ("feature", "kept", "mean before", "after")
    named = [each.description for each in found.drifted[:_DRIFTED]]
    title = f"Most drifted {whose} features"
    console.print(named_table(title, titles, rows, named))


def _cell(feature: AuditedFeature, name: str) -> str:
    if name == "parameters":
        return " ".join(f"{value:+.3f}" for value in feature.parameters.values())
    value = getattr(feature, name)
    if value is None:
        return "-"
    if name == "edited":
        return "silent" if feature.silent else f"{value:.1%}"
    if name in ("overlap", "form"):
        return f"{value:.0%}"
    return f"{value:+.5f}" if name in ("attribution", "switched_off") else f"{value:.4g}"


def _name(feature: AuditedFeature) -> str:
    if feature.description:
        return feature.description
    return " ".join(token.strip() for token in (feature.promotes or ())[:5])


def print_pulled(console: Console, found: PulledRecord) -> None:
    """Say what a LoRA reads and writes."""
    told = {"writes": "writes in front of it", "reads": "reads behind it"}
    say(console, f"{found.lora}, by the features of {found.sae} at {found.hook}")
    for side in found.sides:
        say(
            console,
            f"What it {told[side.kind]} ({len(side.modules)} modules): {len(side.features)} features "
            f"explain {side.share:.0%}, of a random change {side.random_share:.0%}",
        )
        rows = [
            (
                str(each.feature),
                f"{each.share:.1%}",
                f"{each.share_alone:.1%}",
                f"{each.encoder:.2f}",
            )
            for each in side.features
        ]
        named = [each.description for each in side.features]
        console.print(named_table("", ("feature", "share", "alone", "encoder"), rows, named))
        for direction in side.directions:
            say(
                console,
                f"  direction with {direction.share:.0%}: nearest to feature {direction.feature} (cosine "
                f"{direction.cosine:.2f})",
            )
    if not found.sides:
        say(console, "Nothing of it writes to the stream in front of the hook or reads it behind")
    for kind, names in (("act elsewhere", found.elsewhere), ("are not known", found.unknown)):
        if names:
            say(
                console,
                f"{len(names)} modules {kind}: {', '.join(names[:4])}{' ...' * (len(names) > 4)}",
            )


def print_tuned(console: Console, found: TunedRecord) -> None:
    """Say which features' mean activations a fine-tuning changed."""
    say(console, f"{found.tuned} against {found.base}, by the features of {found.sae}")
    say(
        console,
        f"On {found.n_tokens} tokens of {found.n_texts} texts the means of {found.n_changed} features "
        "differ (95 % intervals over texts, each for itself)",
    )
    say(
        console,
        f"The SAE explains {found.explained_before:.0%} of the variance in the base model, "
        f"{found.explained_after:.0%} in the tuned one",
    )
    rows = [
        (
            str(each.feature),
            f"{each.before:.4f}",
            f"{each.after:.4f}",
            f"{each.after - each.before:+.4f} [{each.low:+.4f}, {each.high:+.4f}]",
            f"{each.fires_before:.1%} to {each.fires_after:.1%}",
        )
        for each in found.features
    ]
    titles = ("feature", "before", "after", "difference (95 %)", "fires")
    named = [each.description for each in found.features]
    console.print(named_table("Largest differences in the residual stream", titles, rows, named))


def say(console: Console, text: str) -> None:
    """One line, whatever is in it."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)

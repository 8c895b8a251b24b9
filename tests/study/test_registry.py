"""What is said of SAELens' list, as it is installed here."""

import json
from collections import Counter
from typing import Any

import pytest
from cleansteer.cli.app import main
from cleansteer.steering_eval.families import known_families
from cleansteer.study import registry
from cleansteer.study.registry import FAST, SLOW, Release, judge, model_type_of, releases
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory


@pytest.fixture(scope="module")
def listed() -> list[Release]:
    return list(releases())


def test_every_dictionary_of_the_list_is_judged_once(listed: list[Release]) -> None:
    known = get_pretrained_saes_directory()
    assert [release.name for release in listed] == list(known)
    for release in listed:
        assert list(release.judgements) == list(known[release.name].saes_map)
        assert release.model == known[release.name].model


def test_most_are_supported_and_most_of_these_fast(listed: list[Release]) -> None:
    total = sum(len(release.judgements) for release in listed)
    fast, slow, no = (sum(r.count(kind) for r in listed) for kind in ("fast", "slow", "no"))
    assert fast + slow + no == total
    assert total > 10_000
    assert fast + slow >= 0.9 * total
    assert fast >= 0.7 * (fast + slow)


def test_reasons_stand_where_they_have_to(listed: list[Release]) -> None:
    for release in listed:
        for name, each in release.judgements.items():
            assert (each.reason == "") == (each.support == "fast"), (release.name, name)
            if each.support == "fast":
                assert release.model_type in known_families()
            if each.support == "slow":
                assert release.model_type in SLOW
    assert all(release.model_type is not None for release in listed)
    told = Counter(reason for release in listed for reason in release.reasons)
    assert len(told) >= 4


def test_fast_types_are_the_registered_families() -> None:
    assert known_families() == FAST


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("gpt2-small", "gpt2"),
        ("gemma-2b-it", "gemma"),
        ("gemma-2-27b", "gemma2"),
        ("google/gemma-3-270m", "gemma3_text"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "llama"),
        ("Qwen/Qwen3-30B-A3B-Base", "qwen3_moe"),
        ("qwen3-0.6b", "qwen3"),
        ("Qwen/Qwen3.5-35B-A3B-Base", "qwen3_5_moe"),
        ("Qwen/Qwen3.5-2B-Base", "qwen3_5"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2"),
        ("nobody/new-model", None),
    ],
)
def test_models_and_their_types(model: str, kind: str | None) -> None:
    assert model_type_of(model) == kind


@pytest.mark.parametrize(
    ("kind", "loader", "sae", "support", "words"),
    [
        ("gemma2", "gemma_2", {"id": "layer_3", "path": "layer_3"}, "fast", ""),
        ("gemma2", "temporal", {"id": "x", "path": "x"}, "no", "temporal"),
        ("gemma2", "gemma_2", {"id": "embedding/width_4k", "path": "embedding"}, "no", "embedding"),
        ("gpt_oss", None, {"id": "x", "path": "x"}, "slow", "full forward passes"),
        ("qwen3_5", None, {"id": "x", "path": "x"}, "no", "bridge"),
        (None, None, {"id": "x", "path": "x"}, "no", "not known"),
        ("gemma2", "a_new_loader", {"id": "x", "path": "x"}, "no", "a_new_loader"),
        ("qwen3", "mntss_clt_layer_transcoder", {"id": "layer_0", "path": 0}, "fast", ""),
    ],
)
def test_judgements(
    kind: str | None, loader: str | None, sae: dict[str, Any], support: str, words: str
) -> None:
    found = judge(kind, "a model", loader, sae)
    assert found.support == support
    assert words in found.reason


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["cleansteer", "registry", *words])
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as left:
        main()
    code: int = left.value.code  # type: ignore[assignment]
    return code


def test_the_command_counts_at_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], listed: list[Release]
) -> None:
    monkeypatch.setattr(registry, "releases", lambda: iter(listed))
    assert run(monkeypatch) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    total = sum(len(release.judgements) for release in listed)
    last = shown.err.splitlines()[-1]
    assert f"{len(listed)} releases, {total:,} dictionaries" in last
    assert "temporal" in shown.err

    assert run(monkeypatch, "--json", "GEMMA-3-1B") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {r.name for r in listed if "gemma-3-1b" in f"{r.name} {r.model}".lower()}
    assert all(release["model_type"] == "gemma3_text" for release in found.values())

    assert run(monkeypatch, "no such thing") == 2
    assert "'no such thing'" in capsys.readouterr().err

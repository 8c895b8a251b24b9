"""Settings proposed for dictionaries of SAELens' list."""

import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cleansteer.cli.app import main
from cleansteer.core.errors import InputError
from cleansteer.core.settings import parse_setting, read_setting
from cleansteer.study.catalogue import load_setting
from cleansteer.study.proposal import Listed, find, is_transcoder, propose
from cleansteer.study.registry import releases
from cleansteer.study.sizes import hub_name, model_size
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory


def proposed(release: str, sae_id: str, downstream: str | None = None) -> dict[str, Any]:
    return tomllib.loads(propose(release, sae_id, downstream).text)


@pytest.mark.parametrize("name", ["gpt2-small", "gemma-2-2b"])
def test_the_papers_pairs_come_out(name: str) -> None:
    setting = load_setting(name)
    assert setting.sae.release is not None
    assert setting.sae.id is not None
    found = proposed(setting.sae.release, setting.sae.id)
    assert found["model"]["name"] == setting.model.name
    assert found["model"]["dtype"] == setting.model.dtype
    assert found["downstream_sae"]["release"] == setting.downstream_sae.release
    assert found["downstream_sae"]["id"] == setting.downstream_sae.id


@pytest.mark.parametrize(
    ("release", "sae_id", "downstream"),
    [
        (
            "gemma-scope-2-1b-pt-res",
            "layer_13_width_16k_l0_big",
            ("gemma-scope-2-1b-pt-res", "layer_17_width_16k_l0_big"),
        ),
        (
            "gemma-scope-2-4b-pt-transcoders-all",
            "layer_10_width_16k_l0_big",
            ("gemma-scope-2-4b-pt-res-all", "layer_15_width_16k_l0_big"),
        ),
        ("llama_scope_lxr_8x", "l19r_8x", ("llama_scope_lxr_8x", "l24r_8x")),
        (
            "qwen-scope-3-1.7b-base-w32k-l50",
            "layer14",
            ("qwen-scope-3-1.7b-base-w32k-l50", "layer18"),
        ),
        (
            "sae_bench_gemma-2-2b_topk_width-2pow12_date-1109",
            "blocks.12.hook_resid_post__trainer_0",
            (
                "sae_bench_gemma-2-2b_topk_width-2pow12_date-1109",
                "blocks.19.hook_resid_post__trainer_0",
            ),
        ),
    ],
)
def test_downstream_is_of_the_same_kind_a_few_layers_up(
    release: str, sae_id: str, downstream: tuple[str, str]
) -> None:
    found = proposed(release, sae_id)["downstream_sae"]
    assert (found["release"], found["id"]) == downstream


def test_mean_l0_may_differ_between_layers() -> None:
    found = proposed("gemma-scope-2b-pt-transcoders", "layer_0/width_16k/average_l0_76")
    assert found["downstream_sae"]["release"] == "gemma-scope-2b-pt-res"
    assert found["downstream_sae"]["id"].startswith("layer_4/width_16k/average_l0_")


def test_one_dictionary_of_every_release_gives_a_setting_or_one_line() -> None:
    known = get_pretrained_saes_directory()
    made, refused = 0, Counter[tuple[str, bool]]()
    for release in releases():
        ids = list(known[release.name].saes_map)
        sae_id = ids[len(ids) // 3]
        try:
            found = propose(release.name, sae_id)
        except InputError as error:
            refused[release.judgements[sae_id].support, "--downstream" in str(error)] += 1
            continue
        made += 1
        data = tomllib.loads(found.text)
        data["heldout_corpus"] = data["corpus"] | data["heldout_corpus"]
        setting = parse_setting(data, "proposal")
        assert setting.name == found.name
        assert setting.sae.id == sae_id
        assert setting.downstream_sae.id in known[str(setting.downstream_sae.release)].saes_map
        steered = find(release.name, sae_id)
        below = find(str(setting.downstream_sae.release), str(setting.downstream_sae.id))
        assert steered.model == below.model
        assert not is_transcoder(below)
        assert steered.layer is not None
        assert below.layer is not None
        assert below.layer > steered.layer
    assert made > 120
    assert set(refused) <= {("no", False), ("fast", True), ("slow", True)}


@pytest.mark.parametrize(
    ("sae_id", "release", "model", "count"),
    [
        ("layer_12/width_16k/canonical", "r", "gemma-2-2b", 16 << 10),
        ("layer_12_width_262k_l0_big", "r", "google/gemma-3-1b-pt", 262 << 10),
        ("layer_12_width_1m_l0_big", "r", "google/gemma-3-1b-pt", 1 << 20),
        ("l19r_32x", "r", "meta-llama/Llama-3.1-8B", 131_072),
        ("layer14", "qwen-scope-3-1.7b-base-w32k-l50", "Qwen/Qwen3-1.7B-Base", 32 << 10),
        ("blocks.12.hook__trainer_0", "sae_bench_width-2pow12_date", "gemma-2-2b", 4096),
        ("blocks.8.hook_resid_pre", "gpt2-small-res-jb", "gpt2-small", 24_576),
        ("blocks.8.hook_resid_pre", "r", "gpt2-small", None),
    ],
)
def test_sizes_as_far_as_names_tell(
    sae_id: str, release: str, model: str, count: int | None
) -> None:
    assert Listed(release, sae_id, model, None, "path").n_features == count


def test_every_model_that_can_be_screened_is_known() -> None:
    """By its name in the list, and by that on the hub."""
    for release in releases():
        if any(each.support != "no" for each in release.judgements.values()):
            assert "/" in hub_name(release.model) or hub_name(release.model) == "gpt2"
            size = model_size(release.model)
            assert size is not None, release.model
            assert size == model_size(hub_name(release.model))
    for name in ("gpt2-xl", "somebody/my-gpt2", "llama-3", "gemma-3-1b-pt-tuned"):
        assert model_size(name) is None


def test_memory_is_that_of_the_weights() -> None:
    found = propose("gpt2-small-res-jb", "blocks.8.hook_resid_pre")
    known = model_size("gpt2-small")
    assert known is not None
    assert found.memory == 4 * known.parameters + 2 * 4 * 2 * 768 * 24_576
    large = propose("gemma-scope-2-27b-pt-res", "layer_31_width_16k_l0_big")
    assert large.memory is not None
    assert large.memory > 50e9
    assert any("gated" in note for note in large.notes)


@pytest.mark.parametrize(
    ("release", "sae_id", "downstream", "words"),
    [
        ("nosuch", "x", None, ("'nosuch' is not in SAELens' list",)),
        ("gpt2-small-res-jb", "blocks.8", None, ("no dictionary 'blocks.8'", "blocks.8.hook")),
        ("temporal-sae-gemma-2-2b", "blocks.12.hook_resid_post", None, ("temporal", "another")),
        ("mwhanna-qwen3-4b-transcoders", "layer_10", None, ("--downstream",)),
        (
            "mwhanna-qwen3-4b-transcoders",
            "layer_10",
            "layer_12",
            ("layer_12 is a transcoder", "--downstream"),
        ),
        (
            "gpt2-small-res-jb",
            "blocks.8.hook_resid_pre",
            "pythia-70m-deduped-res-sm:blocks.4.hook_resid_post",
            ("'pythia-70m-deduped'", "'gpt2-small'"),
        ),
        ("gpt2-small-res-jb", "blocks.11.hook_resid_post", None, ("further up", "--downstream")),
    ],
)
def test_what_is_refused(
    release: str, sae_id: str, downstream: str | None, words: tuple[str, ...]
) -> None:
    with pytest.raises(InputError) as caught:
        propose(release, sae_id, downstream)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["cleansteer", "setting", "new", *words])
    with pytest.raises(SystemExit) as left:
        main()
    code: int = left.value.code  # type: ignore[assignment]
    return code


def test_the_command_writes_a_file_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("gpt2-small-res-jb", "blocks.8.hook_resid_pre")
    assert run(monkeypatch, *words) == 0
    told = capsys.readouterr()
    (path,) = tmp_path.iterdir()
    assert f"cleansteer screen {path.name}" in told.err
    assert "GB" in told.err
    setting = read_setting(path)
    assert setting.steering.mode == "matched"
    assert setting.heldout_corpus.split == "validation"
    before = path.read_bytes()
    assert run(monkeypatch, *words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(monkeypatch, *words, "--out", "x.json") == 2
    assert "expected .toml" in capsys.readouterr().err
    assert run(monkeypatch, *words, "--downstream", "blocks.9.hook_resid_pre", "--overwrite") == 0
    assert path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]


MATRYOSHKA = ("gemma-2-2b-res-matryoshka-dc", "blocks.12.hook_resid_post")


def test_a_level_of_a_matryoshka_dictionary(tmp_path: Path) -> None:
    text = propose(*MATRYOSHKA, first=2048).text
    setting = tomllib.loads(text)
    assert setting["sae"]["first"] == 2048
    assert "first" not in setting["downstream_sae"]
    assert setting["name"].endswith("-first-2048")
    assert "--first 2048`" in text.splitlines()[0]
    (tmp_path / "made.toml").write_text(text, "utf-8")
    assert read_setting(tmp_path / "made.toml").sae.first == 2048


def test_no_level_of_more_features_than_the_list_says() -> None:
    with pytest.raises(InputError, match=r"--first 40000: .* has 32768 features"):
        propose(*MATRYOSHKA, first=40000)
    with pytest.raises(InputError, match=r"--first 70000: .* has 16384 features"):
        propose("gemma-scope-2b-pt-res-canonical", "layer_12/width_16k/canonical", first=70000)

"""What features mean before and after an edit: by plain loops, as planted, and under the penalty."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lessons
import pandas as pd
import pytest
import teaching
import tiny
import torch
import world
from cleansteer.adapters import SaeAdapterConfig
from cleansteer.auditing import peaks
from peft import get_peft_model
from planted import HOOK, network, plant
from sae_lens import SAE
from torch import Tensor

Command = Callable[..., Any]
TEXTS = lessons.texts(18, seed=11, least=5, most=12, among=60)
K = 10
PUSHED = {0: 0.7, 5: -1.0, 8: 6.0}
"""Feature 0 fires everywhere; 5 is silenced; 8 is made strong."""


@pytest.fixture(autouse=True, scope="module")
def _texts(built: Path) -> None:
    lessons.write(built / "many.jsonl", TEXTS)


def on(built: Path) -> tuple[object, ...]:
    return ("--reference", built / "many.jsonl", "--setting", built / "tiny.toml")


Streams = list[tuple[Tensor, Tensor]]
"""Of every text, behind BOS, before and after."""


def streams(built: Path, edit: Callable[[Tensor], Tensor], layer: int) -> Streams:
    """What enters a layer of plain Hugging Face's model, without and with an edit in front of layer 1."""
    model, found = network(built), []
    for row in TEXTS:
        ids = torch.tensor([[0, *(int(word[1:]) for word in row["text"].split())]])
        sides = []
        for change in (lambda x: x, edit):
            hook = model.transformer.h[1].register_forward_pre_hook(
                lambda _, given, change=change: (change(given[0]), *given[1:])
            )
            seen: list[Tensor] = []
            reading = model.transformer.h[layer].register_forward_pre_hook(
                lambda _, given, seen=seen: seen.append(given[0][0, 1:])
            )
            model(ids)
            hook.remove(), reading.remove()
            sides.append(seen[0])
        found.append((sides[0], sides[1]))
    return found


def by_hand(sae: Any, seen: Streams) -> list[dict[str, float]]:
    """Of every feature, by loops over Python lists."""
    latents = [tuple(sae.encode(side).T.tolist() for side in pair) for pair in seen]
    found = []
    for feature in range(sae.cfg.d_sae):
        sides: dict[str, float] = {}
        tops = []
        for side, name in enumerate(("before", "after")):
            rows = [pair[side][feature] for pair in latents]
            values = [value for row in rows for value in row]
            peaks = [(max(row), text, row.index(max(row))) for text, row in enumerate(rows)]
            active = sorted((peak for peak in peaks if peak[0] > 1e-6), key=lambda p: -p[0])
            sides[name] = sum(values) / len(values)
            sides[f"fires_{name}"] = sum(value > 1e-6 for value in values) / len(values)
            sides[f"texts_{name}"] = len(active)
            tops.append({peak[1:] for peak in active[:K]})
        enough = sides["texts_before"] >= K
        sides["overlap"] = len(tops[0] & tops[1]) / K if enough else float("nan")
        found.append(sides)
    return found


@pytest.fixture(scope="module")
def pushed(built: Path) -> Path:
    return plant(built, built / "pushed-few", "scale", scale=PUSHED)


@pytest.fixture(scope="module")
def expected(built: Path) -> list[pd.DataFrame]:
    """Of the edited SAE and of the downstream one."""
    sae = SAE.load_from_disk(str(built / "primary"))
    chosen = list(PUSHED)
    scale = torch.tensor(list(PUSHED.values()))

    def edit(x: Tensor) -> Tensor:
        return x + (sae.encode(x)[..., chosen] * scale) @ sae.W_dec[chosen]

    below = SAE.load_from_disk(str(built / "downstream"))
    return [
        pd.DataFrame(by_hand(each, streams(built, edit, layer)))
        for each, layer in ((sae, 1), (below, 3))
    ]


def test_figures_are_those_of_plain_loops(
    built: Path, pushed: Path, expected: list[pd.DataFrame], audit: Command, tmp_path: Path
) -> None:
    found = audit(pushed, *on(built), "--meaning", tmp_path / "table.parquet", "--top", 96)
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert table["feature"].tolist() == [*range(96), *range(80)]
    assert table["downstream"].tolist() == [False] * 96 + [True] * 80
    assert table["allowed"].tolist() == [True] * 96 + [False] * 80
    together = pd.concat(expected, ignore_index=True)
    for name in together:
        pd.testing.assert_series_equal(
            table[name], together[name], check_dtype=False, atol=1e-5, rtol=1e-4
        )
    own, below = found["meaning"]
    assert (own["hook"], own["downstream"]) == (HOOK, False)
    assert "others" not in own
    for record, group, frame in (
        (own, own["edited"], expected[0]),
        (below, below["others"], expected[1]),
    ):
        judged = frame["overlap"].dropna()
        assert 0 < len(judged) < len(frame)
        assert (group["n"], group["n_judged"]) == (len(frame), len(judged))
        assert group["overlap"] == pytest.approx(judged.mean())
        assert group["overlap"] < 1
        assert group["kept"] == [int((judged * K).round().eq(n).sum()) for n in range(K + 1)]
        shift = (frame["after"] - frame["before"]).abs().sum() / frame["before"].sum()
        assert group["shift"] == pytest.approx(shift, rel=1e-3)
        assert {each["feature"] for each in record["drifted"]} == {*judged.index[judged < 1]}
        overlaps = [each["overlap"] for each in record["drifted"]]
        assert overlaps == sorted(overlaps)
        for each in record["drifted"]:
            row = frame.loc[each["feature"]]
            assert each["overlap"] == pytest.approx(row["overlap"])
            assert each["after"] == pytest.approx(row["after"], abs=1e-5)
    for feature in found["features"]:
        row = expected[0].loc[feature["feature"]]
        assert feature["mean_after"] == pytest.approx(row["after"], abs=1e-5)
        assert ("overlap" in feature) == (row["texts_before"] >= K)


def test_contexts_are_the_strongest_ones(
    built: Path, pushed: Path, expected: list[pd.DataFrame], audit: Command
) -> None:
    sae = SAE.load_from_disk(str(built / "primary"))
    plain = [sae.encode(before) for before, _ in streams(built, lambda x: x, 1)]
    found = audit(pushed, *on(built))
    assert found["meaning"][0]["drifted"]
    for each in found["meaning"][0]["drifted"]:
        tops = sorted((float(z[:, each["feature"]].max()) for z in plain), reverse=True)[:3]
        told = [context["activation"] for context in each["strongest"]]
        assert told == pytest.approx(tops, rel=1e-4)
        text, z = max(
            zip(TEXTS, plain, strict=True), key=lambda pair: pair[1][:, each["feature"]].max()
        )
        at = int(z[:, each["feature"]].argmax())
        assert each["strongest"][0]["token"] == text["text"].split()[at]
        assert (
            each["strongest"][0]["before"].split()[1:] == text["text"].split()[max(0, at - 9) : at]
        )


def test_an_identity_changes_no_meaning(built: Path, audit: Command, tmp_path: Path) -> None:
    adapter = plant(built, tmp_path / "none", "scale", scale={3: 0.0})
    found = audit(adapter, *on(built), "--meaning", tmp_path / "table.parquet")
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert (table["before"] == table["after"]).all()
    assert (table["overlap"].dropna() == 1).all()
    assert found["n_changed"] == 0
    for record in found["meaning"]:
        group = record["others" if record["downstream"] else "edited"]
        assert (group["overlap"], group["shift"], record["drifted"]) == (1, 0, [])


def test_what_is_encoded_a_few_tokens_at_a_time_is_the_same(
    built: Path, pushed: Path, audit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit(pushed, *on(built), "--meaning", tmp_path / "whole.parquet")
    monkeypatch.setattr(peaks, "_AT_ONCE", 3 * 96)
    audit(pushed, *on(built), "--meaning", tmp_path / "parts.parquet")
    whole, parts = (pd.read_parquet(tmp_path / f"{n}.parquet") for n in ("whole", "parts"))
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-6)


@pytest.fixture(scope="module")
def upright(built: Path) -> Path:
    """An SAE of features at right angles, but that feature 3 is written along feature 7's encoder."""
    made = tiny.sae("standard", HOOK, n_features=tiny.WIDTH)
    drawn = torch.randn(tiny.WIDTH, tiny.WIDTH, generator=torch.Generator().manual_seed(0))
    directions = torch.linalg.qr(drawn)[0]
    decoder = directions.T.clone()
    decoder[3] = directions[:, 7]
    state = {"W_enc": directions, "W_dec": decoder}
    zeros = {"b_enc": torch.full((tiny.WIDTH,), -0.1), "b_dec": torch.zeros(tiny.WIDTH)}
    made.load_state_dict(state | zeros)
    world.save_sae(made, built / "upright")
    return built / "upright"


def test_what_is_pushed_along_a_features_encoder_drifts_and_nothing_else(
    built: Path, upright: Path, audit: Command, tmp_path: Path
) -> None:
    target = {"hook": HOOK, "sae": {"path": str(upright)}, "features": [3]}
    config = SaeAdapterConfig(targets=[target], component="scale")
    model = get_peft_model(network(built), config)
    (scale,) = (p for n, p in model.named_parameters() if n.endswith("scale"))
    scale.data[0] = 8.0
    model.save_pretrained(tmp_path / "adapter")
    table = tmp_path / "table.parquet"
    found = audit(tmp_path / "adapter", "--reference", built / "many.jsonl", "--meaning", table)
    (record,) = found["meaning"]
    assert [each["feature"] for each in record["drifted"]] == [7]
    assert record["drifted"][0]["overlap"] < 0.6
    assert record["edited"]["kept"] == [0] * K + [1]
    features = pd.read_parquet(table).set_index("feature")
    assert features["overlap"].count() > 20
    moved = (features["after"] - features["before"]).abs()
    assert moved[7] > 0.1
    assert moved.drop(7).max() < 1e-5


def test_the_penalty_keeps_what_others_mean(
    built: Path, tmp_path: Path, audit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of their strongest contexts, and their means."""
    reference = ("--reference", built / "many.jsonl")
    allowed = ",".join(map(str, lessons.ACTIVE))
    more = ("--component", "bias", "--learning-rate", 0.2, "--features", allowed)
    others = []
    for weight in (0, 1):
        out = tmp_path / str(weight)
        given = (*teaching.SHORT, *more, *reference, "--drift", weight, "--max-steps", 12)
        assert teaching.train(monkeypatch, built, out, *given) == 0
        (record,) = audit(out, *reference)["meaning"]
        assert (record["edited"]["n"], record["others"]["n"]) == (8, 88)
        others.append(record["others"])
    assert others[1]["overlap"] > others[0]["overlap"]
    assert others[1]["shift"] < 0.5 * others[0]["shift"]


def test_too_few_texts_judge_nothing_and_it_is_told(
    built: Path, pushed: Path, shown: Command, tmp_path: Path
) -> None:
    few = lessons.write(tmp_path / "few.jsonl", TEXTS[:4])
    err = " ".join(shown(pushed, "--reference", few).split())
    assert "none fires in enough texts to be judged" in err
    many = " ".join(shown(pushed, *on(built)).split())
    for part in ("of contexts kept", "80 downstream at blocks.2.hook_resid_post", "Most drifted"):
        assert part in many


def test_a_table_needs_a_reference_and_a_place(
    built: Path, pushed: Path, refused: Command, tmp_path: Path
) -> None:
    assert "expected --reference as well" in refused(pushed, "--meaning", tmp_path / "t.parquet")
    assert "is a directory" in refused(pushed, *on(built), "--meaning", tmp_path)


def test_a_downstream_sae_that_is_not_there_is_left_out(
    built: Path, pushed: Path, shown: Command, tmp_path: Path
) -> None:
    setting = tmp_path / "moved.toml"
    text = (built / "tiny.toml").read_text("utf-8")
    for name in ("model", "primary", "texts.txt", "fresh.txt"):
        text = text.replace(f'"{name}"', f'"{built / name}"')
    setting.write_text(text, "utf-8")
    err = " ".join(shown(pushed, "--reference", built / "many.jsonl", "--setting", setting).split())
    assert "the downstream SAE of tiny is left out" in err
    assert "of contexts kept" in err

"""How the SAEs of the real model are trained: texts, streams, checkpoints, figures; small."""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cleansteer.core.errors import InputError
from cleansteer.core.massive import is_massive
from cleansteer.core.progress import Reporter
from cleansteer.core.saes import open_sae
from cleansteer.miniatures.real import harvest as harvesting
from cleansteer.miniatures.real import program
from cleansteer.miniatures.real.card import FIGURES, write_real_card
from cleansteer.miniatures.real.conversations import questions
from cleansteer.miniatures.real.figures import mean_loss, measure, spliced_loss
from cleansteer.miniatures.real.harvest import (
    WINDOWS,
    harvest,
    harvested,
    streams,
    write_tensors,
)
from cleansteer.miniatures.real.reading import documents, is_held_back, restore, stream, windows
from cleansteer.miniatures.real.recipe import SITES, RealRecipe, check_recipe, hook
from cleansteer.miniatures.real.training import Training, train
from cleansteer.study.catalogue import load_setting
from sae_lens import SAE
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

MINIATURE = Path(program.WEIGHTS).parent / "mini-gpt2" / "model"
WIDTH = 32
SMALL = RealRecipe(
    tokens=4 * 8 * 63,
    parts=2,
    context_length=64,
    batch_windows=4,
    shard_windows=8,
    validation_windows=4,
    spliced_windows=4,
    n_features=64,
    first_k=4,
    k=6,
    samples=300 * 32,
    batch_size=32,
    learning_rate=1e-2,
)
QUIET = Reporter(quiet=True)


@pytest.fixture(autouse=True)
def gradients() -> Iterator[None]:
    with torch.enable_grad():
        yield


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=WIDTH,
        num_hidden_layers=20,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def rows(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 2048, (n, SMALL.context_length), generator=generator)


def sparse(n: int = 4000) -> torch.Tensor:
    """Streams that are sums of four of 48 directions, off the origin."""
    generator = torch.Generator().manual_seed(5)
    directions = torch.randn(48, WIDTH, generator=generator)
    chosen = torch.rand(n, 48, generator=generator).topk(4, dim=1).indices
    amounts = 1 + torch.rand(n, 4, generator=generator)
    return (torch.einsum("nk,nkd->nd", amounts, directions[chosen]) + 3).half()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder of work whose windows are cut."""
    n = SMALL.parts * SMALL.part_windows
    write_tensors(tmp_path / WINDOWS, {"training": rows(n), "validation": rows(4, 1)})
    return tmp_path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (" = Homarus gammarus = \n", "Homarus gammarus"),
        (" = = Early life = = ", "Early life"),
        ("It is 60 cm ( 24 in ) long , 6 @.@ 5 kg .", "It is 60 cm (24 in) long, 6.5 kg."),
        ("a well @-@ known 1 @,@ 200 men 's club .", "a well-known 1,200 men's club."),
        ("She said \" no way \" , and left .", 'She said "no way", and left.'),
        ("One <unk> sentence . Another one is whole .", "Another one is whole."),
        ("All <unk> .", ""),
        ("Text of today, as people write it (really).", "Text of today, as people write it (really)."),
    ],
)  # fmt: skip
def test_wikitext_is_read_as_it_was_written(line: str, expected: str) -> None:
    assert restore(line) == expected


def test_documents_are_consecutive_lines(tmp_path: Path) -> None:
    lines = [f"Line {number} " + "of some length " * 20 for number in range(40)]
    (tmp_path / "a.txt").write_text("\n\n".join(lines), "utf-8")
    found = list(documents(tmp_path / "a.txt"))
    assert "\n".join(found).split("\n") == [" ".join(line.split()) for line in lines]
    assert all(1500 <= len(text) < 2000 for text in found[:-1])
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    for name in ("b.txt", "none.txt"):
        with pytest.raises(InputError, match=name):
            list(documents(tmp_path / name))


def test_a_few_documents_are_held_back() -> None:
    share = sum(is_held_back(f"document {number}") for number in range(10_000)) / 10_000
    assert 0.03 < share < 0.05


def test_windows_hold_every_token_once_behind_bos() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MINIATURE)
    texts = [f"The {number} tensors of a model." for number in range(300)]
    ids = stream(texts, tokenizer, 1000)
    assert len(ids) == 1000
    cut = windows(ids, tokenizer, 64)
    assert cut.shape == (1000 // 63, 64)
    assert set(cut[:, 0].tolist()) == {tokenizer.bos_token_id}
    assert cut[:, 1:].flatten().tolist() == ids[: 63 * len(cut)]


def test_questions_are_distinct_and_seeded() -> None:
    assert questions(300, 0) == questions(300, 0) != questions(300, 1)
    assert len(set(questions(300, 0))) == 300


def test_streams_are_the_hidden_states_behind_the_layers(model: Any) -> None:
    tokens = rows(3)
    with torch.no_grad():
        hidden = model(tokens, output_hidden_states=True).hidden_states
    found = streams(model, tokens)
    for site, layer in SITES.items():
        torch.testing.assert_close(found[site], hidden[layer + 1], atol=0, rtol=0)
        assert hook(site) == f"blocks.{layer}.hook_resid_post"
    assert len(model.model.layers) == 20


def test_massive_tokens_are_left_out() -> None:
    values = torch.randn(1000, 16)
    values[[3, 50]] *= 100
    assert is_massive(values).nonzero().flatten().tolist() == [3, 50]


def test_a_harvest_goes_on_where_it_was(
    work: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    harvest(work, 0, SMALL, model, QUIET)
    whole = {site: harvested(work, 0, site) for site in SITES}
    shards = sorted((work / "part-0").iterdir())
    assert len(shards) == SMALL.part_windows // SMALL.shard_windows == 2
    shards[1].unlink()
    seen = []
    monkeypatch.setattr(harvesting, "streams", lambda m, r: seen.append(len(r)) or streams(m, r))
    harvest(work, 0, SMALL, model, QUIET)
    assert sum(seen) == SMALL.shard_windows
    training = load_file(work / WINDOWS)["training"][: SMALL.part_windows]
    for site in SITES:
        assert torch.equal(harvested(work, 0, site), whole[site])
        expected = streams(model, training)[site][:, 1:].flatten(0, 1).half()
        assert torch.equal(whole[site], expected[~is_massive(expected)])


def test_training_goes_on_to_the_same_weights(work: Path) -> None:
    values = sparse()
    straight = Training(SMALL, values, "primary", None, work / "a.safetensors")
    losses = [straight.advance() for _ in range(straight.steps)]
    stopped = Training(SMALL, values, "primary", None, work / "b.safetensors")
    again = [stopped.advance() for _ in range(7)]
    stopped.save()
    resumed = Training(SMALL, values, "primary", None, work / "b.safetensors")
    assert resumed.step == 7
    again += [resumed.advance() for _ in range(resumed.steps - 7)]
    assert again == losses
    assert losses[-1] < 0.5 * losses[0]
    for name, tensor in straight.sae.state_dict().items():
        assert torch.equal(tensor, resumed.sae.state_dict()[name]), name


def test_the_saved_sae_is_the_trained_one_in_the_models_units(work: Path) -> None:
    """The scale is folded into weights and threshold alike."""
    values = sparse()
    training = Training(SMALL, values, "primary", None, work / "a.safetensors")
    for _ in range(training.steps):
        training.advance()
    scale, x = training._scale, values.float()
    with torch.no_grad():
        before = (scale * x - training.sae.b_dec) @ training.sae.W_enc + training.sae.b_enc
        before = before * training.sae.W_dec.norm(dim=1)
        expected = torch.where(before > training.sae.topk_threshold, before, 0) / scale
        training.finish(work / "saved")
        saved: Any = SAE.load_from_disk(str(work / "saved"), dtype="float32")
        found = saved.encode(x)
    agree = (found > 0) == (expected > 0)
    assert agree.float().mean() > 0.995
    torch.testing.assert_close(found[agree], expected[agree].float(), atol=2e-2, rtol=2e-2)
    assert 2 < (found > 0).sum(dim=1).float().mean() < 8
    torch.testing.assert_close(saved.W_dec.norm(dim=1), torch.ones(64), atol=1e-3, rtol=0)
    assert saved.cfg.metadata.hook_name == hook("primary")
    assert saved.cfg.metadata.exclude_special_tokens
    assert not (work / "a.safetensors").exists()


def test_the_next_part_trains_the_same_sae_further(work: Path, model: Any) -> None:
    for part in (0, 1):
        harvest(work, part, SMALL, model, QUIET)
    first = train(work, 0, "primary", SMALL, QUIET)
    values = harvested(work, 1, "primary")
    further = Training(SMALL, values, "primary", first, work / "next.safetensors")
    saved: Any = SAE.load_from_disk(str(first), dtype="float32")
    assert further.sae.cfg.k == SMALL.k
    assert Training(SMALL, values, "primary", None, work / "x").sae.cfg.k == SMALL.first_k
    threshold = float(saved.threshold.mean()) * further._scale
    assert float(further.sae.topk_threshold) == pytest.approx(threshold, rel=1e-3)
    x = values.float()
    with torch.no_grad():
        output = further.sae.decode(further.sae.encode(further._scale * x)) / further._scale
        before, after = (((y - x) ** 2).mean() for y in (saved.decode(saved.encode(x)), output))
    assert 0.5 < float(after / before) < 1.5
    second = train(work, 1, "primary", SMALL, QUIET)
    assert second != first
    weights = [load_file(path / "sae_weights.safetensors") for path in (first, second)]
    assert not torch.equal(weights[0]["W_dec"], weights[1]["W_dec"])
    assert train(work, 1, "primary", SMALL, QUIET) == second


@torch.no_grad()
def test_losses_with_something_in_the_streams_place(model: Any) -> None:
    tokens = rows(4)
    plain = float(model(tokens, labels=tokens).loss)
    assert spliced_loss(model, tokens, "primary", lambda values: values) == pytest.approx(plain)
    zeroed = spliced_loss(model, tokens, "primary", torch.zeros_like)
    seen = streams(model, tokens)["primary"]
    changed = torch.where(is_massive(seen.flatten(0, 1)).view(4, -1)[..., None], seen, 0.0)
    changed[:, 0] = seen[:, 0]
    rest = model.model.layers[SITES["primary"] + 1 :]
    positions = torch.arange(tokens.shape[1])[None]
    rotary = model.model.rotary_emb(changed, positions)
    mask = torch.full((1, 1, 64, 64), float("-inf")).triu(1)
    for layer in rest:
        output = layer(changed, attention_mask=mask, position_embeddings=rotary)
        changed = output if isinstance(output, torch.Tensor) else output[0]
    logits = model.lm_head(model.model.norm(changed))[:, :-1]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert zeroed == pytest.approx(float(expected), rel=1e-4)
    assert zeroed != pytest.approx(plain, rel=1e-2)


def test_figures_are_those_of_their_definitions(work: Path, model: Any) -> None:
    """One token of the vocabulary is massive: it counts for nothing but its share."""
    model = copy.deepcopy(model)
    model.model.embed_tokens.weight.data[7] *= 3000
    windows = load_file(work / WINDOWS)
    for rows in windows.values():
        rows[:, 9] = 7
    write_tensors(work / WINDOWS, windows)
    harvest(work, 0, SMALL, model, QUIET)
    saved = {site: train(work, 0, site, SMALL, QUIET) for site in SITES}
    figures = measure(work, saved, SMALL, model)
    tokens = load_file(work / WINDOWS)["validation"]
    assert list(figures) == list(SITES)
    share = float((tokens[:, 1:] == 7).float().mean())
    for site, found in figures.items():
        x = streams(model, tokens)[site][:, 1:].flatten(0, 1).double()
        x = x[~is_massive(x)]
        sae: Any = SAE.load_from_disk(str(saved[site]), dtype="float32")
        with torch.no_grad():
            error = (sae.decode(sae.encode(x.float())).double() - x).square().sum(dim=0)
        spread = (x - x.mean(dim=0)).square().sum(dim=0)
        assert found["explained_variance"] == pytest.approx(
            float(1 - error.sum() / spread.sum()), rel=1e-4, abs=1e-5
        )
        assert found["massive_share"] == pytest.approx(share, rel=1e-6)
        assert found["norm"] == pytest.approx(float(x.norm(dim=1).median()), rel=1e-3)
        narrow = spread.argsort()[:-2]
        assert found["explained_variance_without_widest"] == pytest.approx(
            float(1 - error[narrow].sum() / spread[narrow].sum()), rel=1e-4, abs=1e-5
        )
        assert found["loss"] == pytest.approx(mean_loss(model, tokens))
        lost = found["zeroed_loss"] - found["loss"]
        kept = found["zeroed_loss"] - found["spliced_loss"]
        assert found["recovered"] == pytest.approx(kept / lost)


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    check_recipe(tmp_path, SMALL, [Path("a.txt")])
    check_recipe(tmp_path, SMALL, [Path("elsewhere/a.txt")])
    for recipe, files in ((replace(SMALL, k=5), ["a.txt"]), (SMALL, ["b.txt"])):
        with pytest.raises(InputError, match="another recipe or other texts"):
            check_recipe(tmp_path, recipe, [Path(name) for name in files])


def test_the_program_says_what_is_wrong_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MINIATURE)
    monkeypatch.setattr(program, "load_real", lambda: (None, tokenizer))
    words = ["--texts", str(tmp_path / "none.txt"), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(harvesting, "hold", lambda model, tokenizer, asked, seed: list(asked))
    assert program.run(words) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("python -m cleansteer.miniatures smollm2: text file")
    assert "none.txt" in told


def test_the_card_says_what_the_figures_say(tmp_path: Path) -> None:
    figures = {
        "explained_variance": 0.812,
        "explained_variance_without_widest": 0.801,
        "l0": 40.25,
        "dead_share": 0.034,
        "massive_share": 0.0004,
        "widest_share": 0.09,
        "first_norm": 22_283.0,
        "norm": 153.0,
        "loss": 3.1,
        "spliced_loss": 3.4,
        "zeroed_loss": 9.0,
        "recovered": 0.949,
    }
    for site in SITES:
        (tmp_path / site).mkdir()
        (tmp_path / site / "figures.json").write_text(json.dumps(figures), "utf-8")
    write_real_card(tmp_path, SMALL, 1, {"a.txt": 1234}, ["b.txt", "c.txt"])
    text = (tmp_path / "README.md").read_text("utf-8")
    told = " ".join(text.split())
    for words in (
        "0.812",
        "0.801",
        "40.2",
        "3.4%",
        "0.949",
        "22,283",
        "| a.txt | 1,234 |",
        "the model's answers and of b.txt, c.txt, all of which are in the public domain",
        "0.04%",
    ):
        assert words in told
    assert (
        f"{SMALL.part_windows * 63:,} tokens in windows of 64, read in 2 parts of which 1" in told
    )
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("|"))


def test_what_ships_is_what_the_card_says() -> None:
    setting = load_setting("smollm2-135m")
    text = (program.WEIGHTS / "README.md").read_text("utf-8")
    size = 0
    for which, site in zip((setting.sae, setting.downstream_sae), SITES, strict=True):
        folder = program.WEIGHTS / site
        assert setting.locate(str(which.path)).resolve() == folder
        figures = json.loads((folder / "figures.json").read_text("utf-8"))
        for key, (title, form) in FIGURES.items():
            row = next(line for line in text.splitlines() if line.startswith(f"| {title} |"))
            assert form.format(figures[key]) in row
        sae, _ = open_sae(which, setting.folder)
        assert sae.cfg.metadata.hook_name == hook(site)
        assert sae.cfg.architecture() == "jumprelu"
        assert (sae.cfg.d_in, sae.cfg.d_sae) == (576, RealRecipe().n_features)
        torch.testing.assert_close(
            sae.W_dec.norm(dim=1), torch.ones(sae.cfg.d_sae), atol=2e-3, rtol=0
        )
        weights = folder / "sae_weights.safetensors"
        assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.float16}
        size += weights.stat().st_size
    assert size < 25e6

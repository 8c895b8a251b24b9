"""A stand-in for the Hugging Face hub: a server on this machine with tiny models, SAEs and texts.

They lie under their real names and in the real file layouts, so that the bundled settings run
through the ordinary loaders; only widths, vocabularies and corpora are small.
"""

import hashlib
import json
import math
import os
import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import tiny
import torch
from safetensors.torch import save_file
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

WIDTH = 16
FEATURES = 128
MODELS = {
    "gpt2-small": "gpt2",
    "pythia-70m-deduped": "EleutherAI/pythia-70m-deduped",
    "gemma-2-2b": "google/gemma-2-2b",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B",
    "llama-3.1-8b-32x": "meta-llama/Llama-3.1-8B",
}
DATASET = "Salesforce/wikitext"
GEMMA_SHAPE = {"d_in": WIDTH, "d_sae": FEATURES}
"""SAELens writes the shape of Gemma Scope's SAEs into its code; its ``config_overrides`` win."""

_README = """---
configs:
- config_name: wikitext-103-raw-v1
  data_files:
  - split: test
    path: wikitext-103-raw-v1/test-*
  - split: train
    path: wikitext-103-raw-v1/train-*
  - split: validation
    path: wikitext-103-raw-v1/validation-*
---
"""
_RESOLVE = re.compile(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)")
_FEATURE = re.compile(r"/api/feature/(.+)/(\d+)")
_API = re.compile(r"/api/(models|datasets)/(.+?)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")


@dataclass
class Hub:
    """A folder ``models/REPO/...`` and ``datasets/REPO/...`` and what was asked of it."""

    folder: Path
    requests: list[str] = field(default_factory=list)
    gated: dict[str, int] = field(default_factory=dict)
    """Repositories whose files are refused, and with which status (401: who are you, 403: no)."""
    endpoint: str = ""

    def repository(self, kind: str, name: str) -> Path | None:
        folder = self.folder / kind / name
        return folder if folder.is_dir() else None

    def environment(self, home: Path) -> dict[str, str]:
        """The environment of a subprocess that knows no other hub and starts with an empty cache."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
        return kept | {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "NEURONPEDIA_URL": self.endpoint,
            "OMP_NUM_THREADS": "1",
        }


@contextmanager
def serve(folder: Path) -> Iterator[Hub]:
    """Answer on 127.0.0.1 until the block is left."""
    hub = Hub(folder)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if match := _RESOLVE.fullmatch(path):
            self._file("datasets" if match[1] else "models", match[2], match[4])
        elif match := _FEATURE.fullmatch(path):  # Neuronpedia's
            self._json({"explanations": [{"description": f"about {match[2]} of {match[1]}"}]})
        elif match := _API.fullmatch(path):
            self._api(*match.groups(), asked)
        else:
            self._refuse(404, "RepoNotFound")

    def _file(self, kind: str, name: str, path: str) -> None:
        folder = self.hub.repository(kind, name)
        if folder is None:
            self._refuse(404 if self.headers.get("Authorization") else 401, "RepoNotFound")
        elif name in self.hub.gated:
            self._refuse(self.hub.gated[name], "GatedRepo")
        elif not (folder / path).is_file():
            self._refuse(404, "EntryNotFound", {"X-Repo-Commit": _commit(name)})
        else:
            content = (folder / path).read_bytes()
            headers = {
                "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
                "X-Repo-Commit": _commit(name),
                "Content-Type": "application/octet-stream",
                "Accept-Ranges": "bytes",
            }
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if wanted is None:
                self._send(200, content, headers)
                return
            first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self._send(206, content[first : last + 1], headers)

    def _api(
        self, kind: str, name: str, what: str | None, revision: str | None, under: str, asked: bytes
    ) -> None:
        folder = self.hub.repository(kind, name)
        if folder is None:
            self._refuse(404 if self.headers.get("Authorization") else 401, "RepoNotFound")
            return
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if what in (None, "revision"):
            siblings = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
            about = {
                "_id": _commit(name)[:24],
                "id": name,
                "sha": _commit(name),
                "private": False,
                "gated": "manual" if name in self.hub.gated else False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": siblings,
            }
            self._json(about)
            return
        known = set(files) | {
            parent for path in files for parent in path.relative_to(folder).parents
        }
        entries = {
            path.relative_to(folder).as_posix(): path
            for path in sorted({folder / part for part in known} - {folder})
        }
        if what == "paths-info":
            wanted = json.loads(asked)["paths"] if asked.startswith(b"{") else _form(asked)
            chosen = [path for path in wanted if path in entries]
        else:
            recursive = "recursive=true" in urlsplit(self.path).query.lower()
            prefix = f"{under}/" if under else ""
            chosen = [
                path
                for path in entries
                if path.startswith(prefix) and (recursive or "/" not in path[len(prefix) :])
            ]
            if not chosen:
                self._refuse(404, "EntryNotFound")
                return
        self._json([_entry(path, entries[path]) for path in chosen])

    def _json(self, data: object) -> None:
        self._send(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        message = f"stand-in hub says {code}"
        headers = {"X-Error-Code": code, "X-Error-Message": message} | (headers or {})
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _commit(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


def _form(asked: bytes) -> list[str]:
    return [
        unquote(part.partition("=")[2]) for part in asked.decode().split("&") if "paths=" in part
    ]


def _entry(path: str, file: Path) -> dict[str, object]:
    if file.is_dir():
        return {"type": "directory", "oid": _commit(path), "size": 0, "path": path}
    oid = hashlib.sha1(file.read_bytes()).hexdigest()
    return {"type": "file", "oid": oid, "size": file.stat().st_size, "path": path}


def build(folder: Path, names: tuple[str, ...] = tuple(MODELS)) -> None:
    """Write what some of the bundled settings need."""
    for name in names:
        repository = folder / "models" / MODELS[name]
        if not repository.exists():
            _write_model(name, repository)
        _SAES[name](folder / "models")
    _write_dataset(folder / "datasets" / DATASET)


def _write_model(name: str, folder: Path) -> None:
    torch.manual_seed(0)
    network = _NETWORKS[name]()
    for key, parameter in network.named_parameters():
        if "norm" in key or "ln_" in key:  # norms that are not the identity
            parameter.data += 0.3 * torch.randn_like(parameter)
    bos = name.startswith(("gemma", "llama"))
    sharded = {"max_shard_size": "60KB"} if bos else {}
    network.save_pretrained(folder, **sharded)
    tokenizer = tiny.tokenizer()
    if bos:
        tokenizer.bos_token = "w1"
    tokenizer.save_pretrained(folder)


def _gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=tiny.VOCABULARY,
            n_layer=12,
            n_embd=WIDTH,
            n_head=1,
            n_inner=WIDTH // 2,
            n_positions=64,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.2,
        )
    )


_SHAPE = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH // 2,
    "num_attention_heads": 1,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "initializer_range": 0.2,
}


def _neox() -> PreTrainedModel:
    changes = {"num_hidden_layers": 6, "rotary_pct": 0.25, "bos_token_id": 0}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**(_SHAPE | changes)))


def _gemma2() -> PreTrainedModel:
    changes = {
        "num_hidden_layers": 21,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 32,
        "pad_token_id": 0,
    }
    return Gemma2ForCausalLM(Gemma2Config(**(_SHAPE | changes)))


def _llama() -> PreTrainedModel:
    rotation = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    changes = {"num_hidden_layers": 21, "num_key_value_heads": 1, "rope_parameters": rotation}
    return LlamaForCausalLM(LlamaConfig(**(_SHAPE | changes)))


_NETWORKS = {
    "gpt2-small": _gpt2,
    "pythia-70m-deduped": _neox,
    "gemma-2-2b": _gemma2,
    "llama-3.1-8b": _llama,
    "llama-3.1-8b-32x": _llama,
}


def _tensors(seed: int, n_features: int = FEATURES) -> dict[str, torch.Tensor]:
    hook = "blocks.0.hook_resid_pre"
    state = tiny.sae("jumprelu", hook, n_features, seed, width=WIDTH).state_dict()
    return {name: tensor.clone().contiguous() for name, tensor in state.items()}


def _write_saelens(folder: Path, model: str, hook: str, seed: int) -> None:
    """SAELens' own layout as of its versions before 6."""
    folder.mkdir(parents=True)
    about = {
        "model_name": model,
        "hook_point": hook,
        "hook_point_layer": int(hook.split(".")[1]),
        "hook_point_head_index": None,
        "dataset_path": "Skylion007/openwebtext",
        "context_size": 128,
        "d_in": WIDTH,
        "d_sae": FEATURES,
        "dtype": "torch.float32",
        "device": "cpu",
    }
    (folder / "cfg.json").write_text(json.dumps(about), "utf-8")
    tensors = _tensors(seed)
    del tensors["threshold"]
    save_file(tensors, folder / "sae_weights.safetensors")


def _gpt2_saes(models: Path) -> None:
    for seed, hook in enumerate(("blocks.8.hook_resid_pre", "blocks.10.hook_resid_pre")):
        folder = models / "jbloom/GPT2-Small-SAEs-Reformatted" / hook
        _write_saelens(folder, "gpt2-small", hook, seed)
        save_file({"sparsity": torch.zeros(FEATURES)}, folder / "sparsity.safetensors")


def _pythia_saes(models: Path) -> None:
    for layer in (4, 5):
        folder = models / "ctigges/pythia-70m-deduped__res-sm_processed" / f"{layer}-res-sm"
        _write_saelens(folder, "pythia-70m-deduped", f"blocks.{layer}.hook_resid_post", layer)


def _gemma_saes(models: Path) -> None:
    for layer, l0 in ((12, 82), (16, 78)):
        place = f"google/gemma-scope-2b-pt-res/layer_{layer}/width_16k/average_l0_{l0}"
        write_scope(models / place, layer)


def write_scope(folder: Path, layer: int) -> None:
    """An SAE in Gemma Scope's layout."""
    folder.mkdir(parents=True)
    tensors = {k.replace("W_", "w_"): v.numpy() for k, v in _tensors(layer).items()}
    np.savez(folder / "params.npz", **tensors)


def _llama_saes(models: Path, times: int, n_features: int) -> None:
    from sae_lens.loading.pretrained_saes_directory import get_norm_scaling_factor

    for layer in (16, 20):
        name = f"Llama3_1-8B-Base-L{layer}R-{times}x"
        folder = models / f"fnlp/Llama3_1-8B-Base-LXR-{times}x" / name
        (folder / "checkpoints").mkdir(parents=True)
        scale = get_norm_scaling_factor(f"llama_scope_lxr_{times}x", f"l{layer}r_{times}x")
        assert scale is not None
        about = {
            "d_model": WIDTH,
            "d_sae": n_features,
            "jump_relu_threshold": 0.4,
            "hook_point_in": f"blocks.{layer}.hook_resid_post",
            "dataset_average_activation_norm": {"in": math.sqrt(WIDTH) / scale},
        }
        (folder / "hyperparams.json").write_text(json.dumps(about), "utf-8")
        tensors = _tensors(layer, n_features)
        state = {
            "encoder.weight": tensors["W_enc"].T,
            "encoder.bias": scale * tensors["b_enc"],
            "decoder.weight": tensors["W_dec"].T,
            "decoder.bias": tensors["b_dec"],
        }
        state = {k: v.bfloat16().contiguous() for k, v in state.items()}
        save_file(state, folder / "checkpoints" / "final.safetensors")


_SAES = {
    "gpt2-small": _gpt2_saes,
    "pythia-70m-deduped": _pythia_saes,
    "gemma-2-2b": _gemma_saes,
    "llama-3.1-8b": lambda models: _llama_saes(models, 8, FEATURES),
    "llama-3.1-8b-32x": lambda models: _llama_saes(models, 32, 192),
}


def _write_dataset(folder: Path) -> None:
    """As many rows that 2 % of ``train`` are 40 long texts, the others too short to be taken."""
    rows = {"train": (40, 2000), "validation": (40, 40), "test": (2, 2)}
    files = folder / "wikitext-103-raw-v1"
    files.mkdir(parents=True)
    (folder / "README.md").write_text(_README, "utf-8")
    for seed, (split, (n_long, n)) in enumerate(rows.items()):
        draw = random.Random(seed)
        texts = [
            " ".join(f"w{draw.randrange(2, tiny.VOCABULARY)}" for _ in range(2500))
            for _ in range(n_long)
        ]
        table = pd.DataFrame({"text": texts + [f" = {i} = \n" for i in range(n - n_long)]})
        table.to_parquet(files / f"{split}-00000-of-00001.parquet", index=False)

"""GGUF files as llama.cpp's own package writes them: small, quantised, whole or broken."""

import json
from collections.abc import Callable
from pathlib import Path

import cleansteer
import gguf
import numpy as np
from numpy.typing import NDArray

WEIGHTS = Path(cleansteer.__file__).parent / "miniatures" / "weights"
TOKENIZER = WEIGHTS / "mini-gpt2" / "model" / "tokenizer.json"
WIDTH, HEADS, KEYS, INNER, LAYERS = 64, 4, 2, 96, 2
Q4_1 = gguf.GGMLQuantizationType.Q4_1


def tensors(n_tokens: int, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Random weights of a Llama, by llama.cpp's names; those of queries and keys as it permutes them."""
    generator = np.random.default_rng(seed)
    head = WIDTH // HEADS

    def drawn(*shape: int) -> NDArray[np.float32]:
        return generator.normal(0, 0.1, shape).astype(np.float32)

    found = {"token_embd.weight": drawn(n_tokens, WIDTH), "output.weight": drawn(n_tokens, WIDTH)}
    found["output_norm.weight"] = 1 + drawn(WIDTH)
    for layer in range(LAYERS):
        shapes = {
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (KEYS * head, WIDTH),
            "attn_v": (KEYS * head, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (INNER, WIDTH),
            "ffn_up": (INNER, WIDTH),
            "ffn_down": (WIDTH, INNER),
        }
        found |= {f"blk.{layer}.{name}.weight": drawn(*shape) for name, shape in shapes.items()}
        found |= {
            f"blk.{layer}.{name}.weight": 1 + drawn(WIDTH) for name in ("attn_norm", "ffn_norm")
        }
    return found


def write(
    path: Path,
    tokenizer: bool = True,
    architecture: str = "llama",
    without: str = "",
    seed: int = 0,
) -> Path:
    """A small quantised model with the tokenizer of a miniature."""
    vocabulary = json.loads(TOKENIZER.read_text("utf-8"))["model"]
    tokens = sorted(vocabulary["vocab"], key=vocabulary["vocab"].get)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    if tokenizer:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(tokens)
        kinds = [gguf.TokenType.NORMAL] * len(tokens)
        writer.add_token_types([gguf.TokenType.CONTROL, *kinds[1:]])
        writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(0)
    for name, values in tensors(len(tokens), seed).items():
        if name == without:
            continue
        if values.ndim == 2:
            writer.add_tensor(name, gguf.quants.quantize(values, Q4_1), raw_dtype=Q4_1)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def cut(share: float) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        whole = write(folder / "whole.gguf").read_bytes()
        path = folder / "cut.gguf"
        path.write_bytes(whole[: int(share * len(whole))])
        return path

    return make


def of_bytes(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "bytes.gguf"
        path.write_bytes(content)
        return path

    return make

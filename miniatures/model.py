"""Train a miniature language model and its tokenizer from nothing."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from .text import HELD_OUT_PACKAGES, TRAINED_PACKAGES, gather

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class ModelRecipe:
    """Shape and training of a miniature; all families share everything but their architecture."""

    name: str
    family: str
    """A key of ``CONFIGURATIONS``."""
    seed: int = 0
    vocab_size: int = 2048
    n_layer: int = 4
    n_embd: int = 128
    n_head: int = 4
    n_positions: int = 256
    steps: int = 2400
    batch_size: int = 32
    learning_rate: float = 3e-3
    warm_up_steps: int = 100
    weight_decay: float = 0.1


def _gpt2(recipe: ModelRecipe) -> PretrainedConfig:
    return GPT2Config(
        n_layer=recipe.n_layer,
        n_embd=recipe.n_embd,
        n_head=recipe.n_head,
        n_positions=recipe.n_positions,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )


def _pythia(recipe: ModelRecipe) -> PretrainedConfig:
    return GPTNeoXConfig(
        num_hidden_layers=recipe.n_layer,
        hidden_size=recipe.n_embd,
        num_attention_heads=recipe.n_head,
        intermediate_size=4 * recipe.n_embd,
        max_position_embeddings=recipe.n_positions,
        use_parallel_residual=True,
        tie_word_embeddings=False,
    )


def _gemma(recipe: ModelRecipe) -> PretrainedConfig:
    head = recipe.n_embd // recipe.n_head
    return Gemma2Config(
        num_hidden_layers=recipe.n_layer,
        hidden_size=recipe.n_embd,
        num_attention_heads=recipe.n_head,
        num_key_value_heads=recipe.n_head // 2,
        head_dim=head,
        query_pre_attn_scalar=head,
        intermediate_size=3 * recipe.n_embd,
        max_position_embeddings=recipe.n_positions,
        sliding_window=32,
    )


def _llama(recipe: ModelRecipe) -> PretrainedConfig:
    return LlamaConfig(
        num_hidden_layers=recipe.n_layer,
        hidden_size=recipe.n_embd,
        num_attention_heads=recipe.n_head,
        num_key_value_heads=recipe.n_head // 2,
        intermediate_size=3 * recipe.n_embd,
        max_position_embeddings=recipe.n_positions,
        tie_word_embeddings=False,
    )


CONFIGURATIONS: dict[str, Callable[[ModelRecipe], PretrainedConfig]] = {
    "gpt2": _gpt2,
    "pythia": _pythia,
    "gemma": _gemma,
    "llama": _llama,
}
"""GPT-2 (Radford et al. 2019, section 2.3); Pythia (arXiv:2304.01373, section 2.2: rotary, parallel
residual); Gemma-2 (arXiv:2408.00118, section 2: sliding and full layers in turn, soft-caps, norms
on both sides); Llama (arXiv:2407.21783, section 3.2: rotary, grouped queries, gated MLP)."""


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer as GPT-2's, with one special token that both starts and ends."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT
    )


def token_stream(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """All texts as one ``[token]`` tensor, joined by the end-of-text token."""
    ids: list[int] = []
    for start in range(0, len(texts), 1000):
        for row in tokenizer(list(texts[start : start + 1000]), add_special_tokens=False)[
            "input_ids"
        ]:
            ids.extend(row)
            ids.append(tokenizer.eos_token_id)
    return torch.tensor(ids)


def crops(stream: Tensor, length: int, batch_size: int, bos: int, seed: int) -> Iterator[Tensor]:
    """Endless ``[batch_size, length]`` crops of a token stream, each with BOS in front."""
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.arange(length - 1)
    while True:
        starts = torch.randint(len(stream) - length, (batch_size, 1), generator=generator)
        yield torch.nn.functional.pad(stream[starts + offsets], (1, 0), value=bos)


@torch.no_grad()
def loss_on(model: PreTrainedModel, stream: Tensor, bos: int, max_rows: int = 400) -> float:
    """Mean next-token loss in nats over consecutive windows of a token stream."""
    length = model.config.max_position_embeddings
    rows = stream[: len(stream) // (length - 1) * (length - 1)].view(-1, length - 1)[:max_rows]
    rows = torch.nn.functional.pad(rows, (1, 0), value=bos)
    losses: list[float] = [model(row, labels=row).loss.item() * len(row) for row in rows.split(50)]
    return sum(losses) / len(rows)


def learning_rate(recipe: ModelRecipe, step: int) -> float:
    """Linear warm-up, then a cosine to a tenth of the peak."""
    if step < recipe.warm_up_steps:
        return recipe.learning_rate * (step + 1) / recipe.warm_up_steps
    done = (step - recipe.warm_up_steps) / max(1, recipe.steps - recipe.warm_up_steps)
    return recipe.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def train_model(
    recipe: ModelRecipe,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, Tensor, dict[str, object]]:
    """Train tokenizer and model; returns both, the training stream and the measured figures.

    The figures are those of the shipped weights: they are rounded to float16 before measuring.
    """
    texts = gather(TRAINED_PACKAGES, "train", recipe.seed)
    tokenizer = train_tokenizer(texts, recipe.vocab_size)
    bos = tokenizer.bos_token_id
    stream = token_stream(texts, tokenizer)
    torch.manual_seed(recipe.seed)
    configuration = CONFIGURATIONS[recipe.family](recipe)
    configuration.vocab_size = recipe.vocab_size
    configuration.bos_token_id = configuration.eos_token_id = bos
    configuration.pad_token_id = None
    model = AutoModelForCausalLM.from_config(configuration).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
    )
    batches = crops(stream, recipe.n_positions, recipe.batch_size, bos, recipe.seed)
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        batch = next(batches)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(batch, labels=batch).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == recipe.steps - 1:
            print(f"{recipe.name} step {step:5d} loss {loss.item():.3f}", flush=True)
    model.half().float().eval().requires_grad_(False)
    seen = set(texts)
    validation = [t for t in gather(TRAINED_PACKAGES, "validation", recipe.seed) if t not in seen]
    figures: dict[str, object] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_texts": len(texts),
        "training_tokens": len(stream),
        "validation_loss": loss_on(model, token_stream(validation, tokenizer), bos),
        "training_loss": loss_on(model, stream, bos),
        "held_out_package_loss": {
            package: loss_on(
                model, token_stream(gather([package], "train", recipe.seed), tokenizer), bos
            )
            for package in HELD_OUT_PACKAGES
        },
    }
    return model, tokenizer, stream, figures

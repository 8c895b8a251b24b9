"""Conversations with an instruct model: what it reads when people talk to it."""

import random
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch

_ASKED = (
    "What is {}?",
    "Explain {} to a child.",
    "Give me three facts about {}.",
    "Write a short story about {}.",
    "Why does {} matter?",
    "What should I know before I learn about {}?",
    "Write a poem about {}.",
    "How would you describe {} to a friend?",
    "What are common mistakes about {}?",
    "Summarise the history of {} in two sentences.",
)
_SUBJECTS = (
    "the moon", "bread", "blood pressure", "the French Revolution", "chess", "vaccines", "rain",
    "inflation", "the violin", "volcanoes", "marriage", "the Roman Empire", "cats", "electricity",
    "football", "prime numbers", "whales", "a broken heart", "the heart", "trains", "coffee",
    "democracy", "winter", "the immune system", "photography", "forests", "taxes", "sleep",
    "Shakespeare", "bicycles", "antibiotics", "the ocean", "a lost child", "black holes", "gardening",
    "a job interview", "headaches", "Python programming", "dinosaurs", "climate change", "honey",
    "the stock market", "grief", "earthquakes", "a wedding", "mushrooms", "diabetes", "the internet",
    "a courtroom", "painting", "the army", "mathematics", "a rainy Sunday", "the brain", "cheese",
    "airports", "religion", "spiders", "poverty", "the weather",
)  # fmt: skip
AT_ONCE = 60
_NEW_TOKENS = 96
_ANSWER = "assistant\n"


def questions(count: int, seed: int) -> list[str]:
    """Distinct questions in a seeded order.

    Raises:
        ValueError: there are fewer.

    """
    asked = [form.format(subject) for form, subject in product(_ASKED, _SUBJECTS)]
    return random.Random(seed).sample(asked, count)


@torch.no_grad()
def hold(model: Any, tokenizer: Any, asked: Sequence[str], seed: int) -> list[str]:
    """Conversations of a question and the model's own answer, as its chat template writes them.

    Answers are sampled at temperature 0.8 from the 50 likeliest tokens, 96 tokens at most.
    """
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        for text in asked
    ]
    found: list[str] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(prompts), AT_ONCE):
            batch = tokenizer(
                prompts[start : start + AT_ONCE],
                return_tensors="pt",
                padding=True,
                padding_side="left",
                add_special_tokens=False,
            )
            written = model.generate(
                **batch,
                max_new_tokens=_NEW_TOKENS,
                do_sample=True,
                temperature=0.8,
                top_k=50,
                pad_token_id=tokenizer.eos_token_id,
            )
            for mask, row in zip(batch["attention_mask"], written, strict=True):
                text = tokenizer.decode(row[int((mask == 0).sum()) :])
                end = tokenizer.eos_token
                found.append(text.rstrip("\n").removesuffix(end).rstrip().removesuffix(end) + end)
    return found


def answer_of(talk: str, end: str) -> str:
    """What the model said in a conversation of :func:`hold`; ``end`` ends a turn."""
    return talk.rpartition(_ANSWER)[2].removesuffix(end)

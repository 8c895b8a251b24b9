"""Tiny random models and SAEs, in memory: any shape, no training, milliseconds."""

import torch
from cleansteer.core.models import LanguageModel, wrap_model
from cleansteer.core.saes import Dictionary, wrap_sae
from cleansteer.core.settings import SaeSetting
from cleansteer.core.sites import Site, parse_site
from sae_lens import SAE
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

VOCABULARY = 600
WIDTH = 32
LAYERS = 4
ARCHITECTURES = ("standard", "jumprelu", "topk", "gated")


def tokenizer() -> PreTrainedTokenizerFast:
    words = {"<eos>": 0} | {f"w{i}": i for i in range(1, VOCABULARY)}
    made = Tokenizer(WordLevel(words, unk_token="<eos>"))
    made.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<eos>",
        unk_token="<eos>",
        pad_token="<eos>",
    )


def network(dtype: torch.dtype = torch.float32, **changes: object) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = {
        "vocab_size": VOCABULARY,
        "n_layer": LAYERS,
        "n_embd": WIDTH,
        "n_head": 4,
        "n_positions": 64,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "initializer_range": 0.2,
    }
    model = GPT2LMHeadModel(GPT2Config(**(config | changes)))
    for name, parameter in model.named_parameters():
        if "ln_" in name:  # norms that are not the identity, so that folding them is tested
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model.to(dtype).eval()


def model(dtype: torch.dtype = torch.float32, **changes: object) -> LanguageModel:
    return wrap_model(network(dtype, **changes), tokenizer())


def sae(
    architecture: str,
    hook: str,
    n_features: int = 96,
    seed: int = 1,
    dtype: torch.dtype = torch.float32,
    width: int = WIDTH,
    **config_changes: object,
) -> SAE:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    config = {
        "architecture": architecture,
        "d_in": width,
        "d_sae": n_features,
        "dtype": str(dtype).removeprefix("torch."),
        "metadata": {"hook_name": hook},
    }
    if architecture == "topk":
        config["k"] = 12
    made = SAE.from_dict(config | config_changes)
    decoder = torch.nn.functional.normalize(normal(n_features, width), dim=1)
    state = {
        "W_dec": decoder * (0.5 + torch.rand(n_features, 1, generator=generator)),
        "W_enc": decoder.T + 0.1 * normal(width, n_features),
        "b_enc": -1.0 + 0.3 * normal(n_features),
        "b_dec": 0.2 * normal(width),
    }
    state["b_enc"][0] = 5.0  # a feature that always fires
    if architecture == "gated":
        state["b_gate"] = state.pop("b_enc")
        state["b_mag"] = -0.3 + 0.2 * normal(n_features)
        state["r_mag"] = 0.2 * normal(n_features)
    if architecture == "jumprelu":
        state["threshold"] = 0.3 + 0.2 * torch.rand(n_features, generator=generator)
    made.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()})
    return made


def dictionary(
    architecture: str,
    language_model: LanguageModel,
    hook: str,
    centred: bool = False,
    **shape: object,
) -> Dictionary:
    made = sae(architecture, hook, **shape)  # type: ignore[arg-type]
    return wrap_sae(made, SaeSetting(path="tiny", centred=centred), language_model)


def site(hook: str, language_model: LanguageModel) -> Site:
    return parse_site(hook, language_model.n_layers)


def contexts(n: int = 40, length: int = 9, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCABULARY, (n, length), generator=generator)

"""Closed lists of words that settings, the command line and Python share."""

from typing import Literal, get_args

Mode = Literal["add", "clamp_global", "clamp_q95", "matched"]
"""How features are steered."""
AlphaUnits = Literal["global", "residual"]
"""What a strength of 1 is in mode ``add``."""
CollateralKind = Literal["absolute", "relative"]
"""By which labels the collateral axis goes."""
ContextType = Literal["mixed", "top", "random", "low", "all"]
"""Which contexts of a feature labels are shown for."""
Sampling = Literal["frequency-spread", "uniform", "uncertain"]
"""Which features are labelled."""
By = Literal["clean", "stability", "collateral", "both"]
"""What features are chosen by; ``predictor.verdict.choice`` says what each means."""
RankedBy = Literal["labels", "linear response", "measurement"]
"""What a ranking goes by: a predictor that was fitted on labels, linear response alone, or labels of
every feature, which need no prediction."""
All = Literal["all"]
"""In place of a number of features: every feature of the dictionary."""
Objective = Literal["sft", "dpo"]
"""What an adapter is trained for."""
ComponentName = Literal["scale", "bias", "lerp", "switch", "mlp", "lowrank", "sparse"]
"""Components that come with the package; ``adapters.components`` registers them by these names."""
Baseline = Literal["lora", "ia3"]
"""Methods of PEFT's own, for comparison; ``adapters.trainers`` configures them."""
Tokens = Literal["all", "completion", "last"]
"""Which tokens an adapter edits; ``adapters.positions`` says which each means."""
Relevance = Literal["gradient", "fisher"]
"""What makes a feature worth training: its gradient, or that against what it moves elsewhere."""
ReportTo = Literal["none", "tensorboard", "wandb", "trackio"]
"""Where TRL sends its logs."""
ExportFormat = Literal["safetensors", "gguf", "lm-eval"]
"""Formats of exported edits; ``adapters.exports`` registers them by these names."""
MODES: tuple[Mode, ...] = get_args(Mode)
CONTEXT_TYPES: tuple[ContextType, ...] = get_args(ContextType)
BYS: tuple[By, ...] = get_args(By)
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)
COMPONENTS: tuple[ComponentName, ...] = get_args(ComponentName)
TOKENS: tuple[Tokens, ...] = get_args(Tokens)
BASELINES: tuple[Baseline, ...] = get_args(Baseline)
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

"""The training of the SAEs, part by part, from where it was left."""

import shutil
from pathlib import Path

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file
from torch import Tensor

from ...core.networks import quiet_libraries
from ...core.progress import Reporter
from ..saes import save_sae
from .harvest import harvested, write_tensors
from .recipe import PACKAGE, RealRecipe, hook

_CHECKPOINT_STEPS = 50


class Training:
    """The training of one SAE on a part's residual streams, from where a checkpoint left it.

    BatchTopK (Bussmann et al. 2024) by SAELens, on streams scaled to a mean norm of sqrt(d).

    Args:
        recipe: how.
        activations: residual streams ``[token, d]``.
        site: whose they are.
        before: the SAE of the part before, which is trained further; None: a new one.
        checkpoint: file of the unfinished training.

    """

    def __init__(
        self,
        recipe: RealRecipe,
        activations: Tensor,
        site: str,
        before: Path | None,
        checkpoint: Path,
    ) -> None:
        self._recipe, self._activations, self._checkpoint = recipe, activations, checkpoint
        width = activations.shape[1]
        self._scale = width**0.5 / float(activations[:100_000].float().norm(dim=1).mean())
        torch.manual_seed(recipe.seed)
        metadata = SAEMetadata(
            model_name=PACKAGE,
            hook_name=hook(site),
            context_size=recipe.context_length,
            prepend_bos=True,
            exclude_special_tokens=True,
            seqpos_slice=(1, None),
        )
        self.sae = BatchTopKTrainingSAE(
            BatchTopKTrainingSAEConfig(
                d_in=width,
                d_sae=recipe.n_features,
                k=recipe.first_k if before is None else recipe.k,
                metadata=metadata,
            )
        )
        if before is None:
            self.sae.b_dec.data = self._scale * activations[:100_000].float().mean(dim=0)
        else:
            self._take_over(before)
        self.steps = recipe.samples // recipe.batch_size
        self._trainer = SAETrainer(
            cfg=SAETrainerConfig(
                total_training_samples=self.steps * recipe.batch_size,
                train_batch_size_samples=recipe.batch_size,
                lr=recipe.learning_rate,
                lr_end=recipe.learning_rate / 10,
                lr_warm_up_steps=self.steps // 50,
                lr_decay_steps=self.steps // 3,
                dead_feature_window=200,
            ),
            sae=self.sae,
            data_provider=iter(()),
        )
        self.step = 0
        if checkpoint.is_file():
            self._load()

    def _take_over(self, before: Path) -> None:
        """Weights of a saved SAE, in units of the scaled streams: what is added to them and what is
        compared with them scales, directions do not.
        """
        saved = load_file(before / "sae_weights.safetensors")
        for name in ("W_enc", "W_dec", "b_enc", "b_dec"):
            values = saved[name].float()
            scaled = values * self._scale if name.startswith("b_") else values
            getattr(self.sae, name).data = scaled
        self.sae.topk_threshold = saved["threshold"].double().mean() * self._scale

    def _batch(self, step: int) -> Tensor:
        size = self._recipe.batch_size
        an_epoch = len(self._activations) // size
        epoch, place = divmod(step, an_epoch)
        generator = torch.Generator().manual_seed(self._recipe.seed + 1000 * epoch)
        order = torch.randperm(len(self._activations), generator=generator)
        chosen = order[place * size : (place + 1) * size]
        batch: Tensor = self._activations[chosen].float() * self._scale
        return batch

    def advance(self) -> float:
        """One step; the loss."""
        output = self._trainer.step(self._batch(self.step))
        self._trainer.n_training_steps += 1
        self.step += 1
        return float(output.loss.detach())

    def _optimised(self) -> list[tuple[int, dict[str, Tensor]]]:
        state = self._trainer.optimizer.state
        parameters = self._trainer.optimizer.param_groups[0]["params"]
        return [(at, state[parameter]) for at, parameter in enumerate(parameters)]

    def save(self) -> None:
        """Write the checkpoint."""
        tensors = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        for at, state in self._optimised():
            tensors |= {f"adam.{at}.{name}": tensor for name, tensor in state.items()}
        tensors["since_fired"] = self._trainer.n_forward_passes_since_fired
        tensors["step"] = torch.tensor(self.step)
        write_tensors(self._checkpoint, {name: tensor.clone() for name, tensor in tensors.items()})

    def _load(self) -> None:
        tensors = load_file(self._checkpoint)
        self.sae.load_state_dict(
            {name[4:]: tensor for name, tensor in tensors.items() if name.startswith("sae.")}
        )
        self.step = int(tensors["step"])
        trainer = self._trainer
        parameters = trainer.optimizer.param_groups[0]["params"]
        for at, parameter in enumerate(parameters):
            trainer.optimizer.state[parameter] = {
                name: tensors[f"adam.{at}.{name}"] for name in ("step", "exp_avg", "exp_avg_sq")
            }
        with quiet_libraries():
            for _ in range(self.step):
                trainer.lr_scheduler.step()
        trainer.n_forward_passes_since_fired = tensors["since_fired"]
        trainer.n_training_steps = self.step
        trainer.n_training_samples = self.step * self._recipe.batch_size

    def finish(self, target: Path) -> None:
        """Save the SAE as the package ships it: the scale folded in, its threshold's too."""
        self.sae.fold_activation_norm_scaling_factor(self._scale)
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        save_sae(self.sae, partial)
        partial.rename(target)
        self._checkpoint.unlink(missing_ok=True)


def train(folder: Path, part: int, site: str, recipe: RealRecipe, out: Reporter) -> Path:
    """Train the SAE of a site on a harvested part, unless that is done; where it lies."""
    target = folder / f"{site}-{part}"
    if target.is_dir():
        return target
    before = folder / f"{site}-{part - 1}" if part else None
    checkpoint = folder / f"{site}-{part}.safetensors"
    training = Training(recipe, harvested(folder, part, site), site, before, checkpoint)
    with out.bar(f"{site} SAE, part {part + 1} of {recipe.parts}", training.steps) as advance:
        advance(training.step)
        while training.step < training.steps:
            training.advance()
            advance(1)
            if training.step % _CHECKPOINT_STEPS == 0:
                training.save()
    training.finish(target)
    return target

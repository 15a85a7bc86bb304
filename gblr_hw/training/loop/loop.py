"""A plain deterministic training loop for any model and Dataset, with penalties as hooks; resumable."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from gblr_hw.training.loop.processes import OrderedBatches, mean_over_processes, share_gradients

Example = tuple[Tensor, Tensor]
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
EpochProgress = Callable[["EpochRecord"], None]


@dataclass(frozen=True)
class LoopSettings:
    """Epochs, examples per step, AdamW's peak learning rate (linear warm-up, cosine to zero), decay and the seed.

    With several processes (torch.distributed) they share each batch. geometry_rate: widths and locations learn at this
    multiple of the learning rate. geometry_beta1: AdamW's average of gradients for them; 0 takes each step's own.
    device: where the model and the batches go. bfloat16: run the model under autocast.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    geometry_rate: float = 1.0
    geometry_beta1: float = 0.9
    seed: int = 0
    device: str = "cpu"
    bfloat16: bool = False


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: mean objective (without penalties), test accuracy in [0, 1], and what the hooks report."""

    epoch: int
    epochs: int
    loss: float
    accuracy: float
    notes: dict[str, float] = field(default_factory=dict)


@dataclass
class LoopState:
    """All that is needed to go on, in plain tensors, numbers and dictionaries (fit for `weights_only` files).

    rng: state of torch's default CPU generator, for networks that draw from it (dropout).
    """

    epoch: int
    model: dict[str, Any]
    optimiser: dict[str, Any]
    hooks: list[dict[str, Any]]
    rng: Tensor


@dataclass(frozen=True)
class History:
    """The epochs run, the state after the last good one, and whether training stopped on a non-finite loss."""

    epochs: tuple[EpochRecord, ...]
    state: LoopState
    diverged: bool


class Hook(Protocol):
    """What a penalty or a schedule may do. `progress` runs from 0 to 1 over all steps."""

    def begin(self, model: nn.Module) -> None:
        """Called once before the first step, after a resumed run's state is back."""

    def loss(self, model: nn.Module, progress: float) -> Tensor | None:
        """A term to add to the loss, or None."""

    def before_step(self, model: nn.Module, progress: float) -> None:
        """Called with gradients in place, before the optimiser's step."""

    def after_step(self, model: nn.Module, progress: float, learning_rate: float) -> None:
        """Called after the optimiser's step with the learning rate that it used."""

    def finish(self, model: nn.Module) -> None:
        """Called once after the last step, before the last evaluation."""

    def notes(self) -> dict[str, float]:
        """What to record for the epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Numbers and tensors that let the hook go on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""


class QuietHook:
    """A hook that does nothing: inherit and override what is needed."""

    def begin(self, model: nn.Module) -> None:
        return None

    def loss(self, model: nn.Module, progress: float) -> Tensor | None:
        return None

    def before_step(self, model: nn.Module, progress: float) -> None:
        return None

    def after_step(self, model: nn.Module, progress: float, learning_rate: float) -> None:
        return None

    def finish(self, model: nn.Module) -> None:
        return None

    def notes(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None


def train(
    model: nn.Module,
    train_set: Dataset[Example],
    test_set: Dataset[Example],
    settings: LoopSettings,
    hooks: Sequence[Hook] = (),
    progress: EpochProgress | None = None,
    resume: LoopState | None = None,
    on_state: Callable[[LoopState], None] | None = None,
    objective: Objective | None = None,
) -> History:
    """Train `model` in place by an objective (outputs, images, labels -> scalar; cross entropy if None) and the hooks'
    terms.

    The order of examples depends on (seed, epoch) alone, so a resumed run repeats what an uninterrupted one does. When
    the loss is not finite the model goes back to the end of the last good epoch and training stops with `diverged` set.
    `on_state` receives after every epoch what `resume` takes. Under torch.distributed every process calls this with the
    same arguments and ends with the same model.
    """
    model.to(settings.device)
    optimiser = torch.optim.AdamW(parameter_groups(model, settings), lr=settings.learning_rate)
    if resume is not None:
        _restore(model, optimiser, hooks, resume)
    state = _state(0 if resume is None else resume.epoch, model, optimiser, hooks)
    records: list[EpochRecord] = []
    for hook in hooks:
        hook.begin(model)
    shared = share_gradients(model)
    for epoch in range(state.epoch, settings.epochs):
        loss = _epoch(model, shared, train_set, settings, epoch, optimiser, hooks, objective or _cross_entropy)
        if not math.isfinite(loss):
            _restore(model, optimiser, hooks, state)
            return History(tuple(records), state, True)
        if epoch + 1 == settings.epochs:
            for hook in hooks:
                hook.finish(model)
        notes = {key: value for hook in hooks for key, value in hook.notes().items()}
        records.append(EpochRecord(epoch + 1, settings.epochs, loss, accuracy(model, test_set), notes))
        state = _state(epoch + 1, model, optimiser, hooks)
        if progress is not None:
            progress(records[-1])
        if on_state is not None:
            on_state(state)
    return History(tuple(records), state, False)


@torch.no_grad()
def accuracy(model: nn.Module, dataset: Dataset[Example], batch_size: int = 256) -> float:
    """Fraction of `dataset` classified rightly, in evaluation mode."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    right = total = 0
    for images, labels in DataLoader(dataset, batch_size):
        right += int((model(images.to(device)).argmax(dim=1) == labels.to(device)).sum())
        total += len(labels)
    model.train(training)
    return right / max(total, 1)


def _epoch(
    model: nn.Module,
    shared: nn.Module,
    train_set: Dataset[Example],
    settings: LoopSettings,
    epoch: int,
    optimiser: torch.optim.Optimizer,
    hooks: Sequence[Hook],
    objective: Objective,
) -> float:
    """One pass over the data; `shared` runs `model` and shares its gradients.

    Returns the mean loss, or NaN as soon as a loss is not finite.
    """
    model.train()
    batches = OrderedBatches(len(train_set), settings.batch_size, settings.seed * 100_003 + epoch)  # type: ignore[arg-type]
    # A generator of its own: workers' seeds must not move the default one, which resuming restores.
    loader = DataLoader(train_set, batch_sampler=batches, generator=torch.Generator().manual_seed(0))
    losses: list[float] = []
    for index, (images, labels) in enumerate(loader):
        done = (epoch + index / len(loader)) / settings.epochs
        rate = settings.learning_rate * rate_at(done, settings.warmup)
        for group in optimiser.param_groups:
            group["lr"] = rate * group["scale"]
        images, labels = images.to(settings.device), labels.to(settings.device)
        with torch.autocast(torch.device(settings.device).type, torch.bfloat16, enabled=settings.bfloat16):
            outputs = shared(images)
        fit = objective(outputs.float(), images, labels)
        terms = [term for hook in hooks if (term := hook.loss(model, done)) is not None]
        loss = torch.stack([fit, *terms]).sum()
        losses.append(float(mean_over_processes(fit.detach())))
        if not bool(torch.isfinite(mean_over_processes(loss.detach()))):
            return math.nan
        optimiser.zero_grad()
        loss.backward()
        for hook in hooks:
            hook.before_step(model, done)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        for hook in hooks:
            hook.after_step(model, done, rate)
    return sum(losses) / max(len(losses), 1)


def _cross_entropy(outputs: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, labels)


def rate_at(done: float, warmup: float) -> float:
    """The learning rate's multiple at a part of the run: a linear warm-up, then a cosine to zero."""
    if done < warmup:
        return max(done / warmup, 0.02)
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def parameter_groups(model: nn.Module, settings: LoopSettings) -> list[dict[str, Any]]:
    """Decay acts on matrices and factors only: decaying widths would be a second, hidden penalty."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    geometry: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        last = name.rsplit(".", 1)[-1]
        if last in ("widths", "locations"):
            geometry.append(parameter)
        else:
            (plain if parameter.dim() < 2 or last == "position" else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": settings.weight_decay, "scale": 1.0},
        {"params": plain, "weight_decay": 0.0, "scale": 1.0},
        {
            "params": geometry,
            "weight_decay": 0.0,
            "scale": settings.geometry_rate,
            "betas": (settings.geometry_beta1, 0.999),
        },
    ]


def _state(epoch: int, model: nn.Module, optimiser: torch.optim.Optimizer, hooks: Sequence[Hook]) -> LoopState:
    return LoopState(
        epoch,
        copy.deepcopy(model.state_dict()),
        copy.deepcopy(optimiser.state_dict()),
        [dict(hook.state_dict()) for hook in hooks],
        torch.get_rng_state(),
    )


def _restore(model: nn.Module, optimiser: torch.optim.Optimizer, hooks: Sequence[Hook], state: LoopState) -> None:
    model.load_state_dict(state.model)
    optimiser.load_state_dict(copy.deepcopy(state.optimiser))
    for hook, saved in zip(hooks, state.hooks, strict=True):
        hook.load_state_dict(saved)
    torch.set_rng_state(state.rng)

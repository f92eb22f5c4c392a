"""Checkpoints of training: one safetensors file, replaced as a whole, so that a kill leaves the last good one."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from train.optimise import Training
from train.randomness import random_states, set_random_states

log = logging.getLogger(__name__)

FILE = "checkpoint.safetensors"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW


def save_checkpoint(folder: Path, tuning: Training, settings: str, spent_s: float) -> None:
    """Write weights, optimiser moments, the random states, the step, and the seconds spent on the run so far.

    ``settings`` guards against mixing two runs. Of a team every process calls this, with its own random state; the leader writes.
    """
    team, device = tuning.descent.team, device_of(tuning)
    random = [team.gather(state) for state in random_states(device)]
    if not team.leads:
        return
    tensors = tuning.trained()
    for row, parameter in enumerate(_parameters(tuning)):
        for moment in _MOMENTS:
            if moment in tuning.optimiser.state[parameter]:
                tensors[f"optimiser.{row}.{moment}"] = tuning.optimiser.state[parameter][moment]
    tensors.update({f"best.{name}": value for name, value in tuning.best.items()})
    tensors.update({f"state.{name}": value for name, value in tuning.state().items()})
    for rank in range(team.size):
        tensors.update({_random_key(rank, kind): states[rank] for kind, states in enumerate(random)})
    progress = {"step": json.dumps(tuning.step), "best_ndcg": json.dumps(tuning.best_ndcg), "spent_s": json.dumps(spent_s)}
    progress |= {"memory": json.dumps(tuning.memory), "stopped": json.dumps(tuning.stopped)}
    progress["scaler"] = json.dumps(tuning.descent.scaler.state_dict())
    partial = folder / f"{FILE}.partial"
    detached = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    try:
        save_file(detached, partial, metadata={**progress, "settings": settings})
        os.replace(partial, folder / FILE)
    except (SafetensorError, OSError) as error:
        # Hours of training are worth more than this checkpoint, and the one before it is whole.
        log.warning("no checkpoint was written at step %d: %s", tuning.step, error)
        partial.unlink(missing_ok=True)


def load_checkpoint(folder: Path, tuning: Training, settings: str) -> bool:
    """Put ``tuning`` where the checkpoint left it; False where there is none of these settings, or it cannot be read.

    It may have been written by more or fewer processes; the same number continues to the same result.
    """
    path = folder / FILE
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dictionary
    except (SafetensorError, OSError):
        return False
    if metadata.get("settings") != settings:
        return False
    with torch.no_grad():
        for name, parameter in tuning.trained().items():
            parameter.copy_(tensors[name])
    for row, parameter in enumerate(_parameters(tuning)):
        state = {moment: tensors[f"optimiser.{row}.{moment}"] for moment in _MOMENTS if f"optimiser.{row}.{moment}" in tensors}
        if state:
            # Where torch keeps them: the moments beside the parameter, the number of steps on the CPU.
            tuning.optimiser.state[parameter] = {
                moment: value if moment == "step" else value.to(parameter.device) for moment, value in state.items()
            }
    device, team = device_of(tuning), tuning.descent.team
    kept = {name.removeprefix("state."): value for name, value in tensors.items() if name.startswith("state.")}
    tuning.restore({name: value.to(device) for name, value in kept.items()})
    keys = [_random_key(team.rank, kind) for kind in range(2)]
    if keys[0] in tensors:  # else there were fewer processes, and this one begins with its seed
        set_random_states([tensors[key] for key in keys if key in tensors], device)
    if scaler := json.loads(metadata.get("scaler", "{}")):
        tuning.descent.scaler.load_state_dict(scaler)
    tuning.step, tuning.best_ndcg = json.loads(metadata["step"]), json.loads(metadata["best_ndcg"])
    tuning.earlier_s, tuning.memory = json.loads(metadata["spent_s"]), json.loads(metadata.get("memory", "{}"))
    tuning.stopped = json.loads(metadata.get("stopped", "false"))
    tuning.best = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
    return True


def device_of(tuning: Training) -> torch.device:
    """Where the weights in training are."""
    return _parameters(tuning)[0].device


def _random_key(rank: int, kind: int) -> str:
    """Of a process's random state, the CPU's (0) or the GPU's (1)."""
    return "random" + (".gpu" if kind else "") + (f".{rank}" if rank else "")


def _parameters(tuning: Training) -> list[Tensor]:
    return [parameter for group in tuning.optimiser.param_groups for parameter in group["params"]]

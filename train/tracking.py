"""Where a training run's curves go: TensorBoard's event files by default, Weights & Biases if asked for, or nowhere.

Scalars are written as they come, in the thread that trains. What cannot be written ends the curves and not the training.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from bertrec.errors import MissingDependency
from train.run import Run

log = logging.getLogger(__name__)

LOGS_FOLDER = "logs"
"""In the run folder: what ``tensorboard --logdir`` is given, and the offline runs of Weights & Biases."""
PROJECT = "bertrec"
LOSS, LEARNING_RATE, ITEM_LEARNING_RATE = "loss", "learning_rate/encoder", "learning_rate/items"
VALIDATION_NDCG, FUSED_NDCG = "validation/ndcg_at_10_text", "validation/ndcg_at_10_fused"


class Tracking(str, Enum):
    """Who keeps the curves."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    NONE = "none"


class Tracker(Protocol):
    """Takes the scalars of a run; a step that comes again, in a sitting that continues the run, replaces what was there."""

    def log(self, step: int, **scalars: float) -> None:
        """Scalars by name at a step, which never falls within a sitting."""

    def close(self, step: int, **scalars: float) -> None:
        """The last scalars; nothing is logged afterwards."""


class NoTracker:
    """Keeps nothing."""

    def log(self, step: int, **scalars: float) -> None:
        """Forget them."""

    def close(self, step: int, **scalars: float) -> None:
        """Forget them too."""


class TensorBoard:
    """Event files in a folder, one a sitting.

    The first event of a sitting says at which step it continues, whereupon TensorBoard drops what an earlier one wrote beyond.
    """

    def __init__(self, folder: Path, step: int) -> None:
        """Continue at ``step``; an OSError is logged, and then nothing is kept."""
        self._writer: EventsWriter | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # The suffix tells two sittings of one second apart.
            self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}.{step}")
        except OSError as error:
            self._give_up(error)
        self._write(Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START)))

    def log(self, step: int, **scalars: float) -> None:
        """One event a scalar."""
        for name, value in scalars.items():
            self._write(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))

    def close(self, step: int, **scalars: float) -> None:
        """Close the file as well."""
        self.log(step, **scalars)
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except OSError as error:
                self._give_up(error)

    def _write(self, event: Event) -> None:
        if self._writer is not None:
            try:
                self._writer.write_event(event)
                self._writer.flush()  # a kill loses no curve
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        log.warning("no more curves are written: %s", error)
        self._writer = None


class WeightsAndBiases:
    """A run of Weights & Biases, offline unless WANDB_MODE says otherwise; ``wandb sync`` uploads it later."""

    def __init__(self, folder: Path, step: int, *, name: str, settings: dict[str, Any]) -> None:
        """``name`` is the run's, in all its sittings. Raises MissingDependency without the extra ``wandb``.

        Anything else, a missing login for instance, is logged, and then nothing is kept.
        """
        try:
            wandb = importlib.import_module("wandb")
        except ImportError:
            raise MissingDependency("wandb", "wandb") from None
        self._run: Any = None
        with self._giving_up():
            folder.mkdir(parents=True, exist_ok=True)
            self._run = wandb.init(
                project=PROJECT,
                id=name,
                name=name,
                dir=str(folder),
                config={**settings, "continued_at_step": step},
                mode=os.environ.get("WANDB_MODE", "offline"),
                resume="allow",
                settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False, x_disable_stats=True),
            )
            # The step is a scalar of its own, which every curve is drawn over, so that a sitting may begin before the last one's
            # end.
            self._run.define_metric("step")
            self._run.define_metric("*", step_metric="step")

    def log(self, step: int, **scalars: float) -> None:
        """One record."""
        if self._run is not None:
            with self._giving_up():
                self._run.log({"step": step, **scalars})

    def close(self, step: int, **scalars: float) -> None:
        """Mark the sitting as ended as well."""
        self.log(step, **scalars)
        if self._run is not None:
            with self._giving_up():
                self._run.finish()

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of many packages' own kinds
            log.warning("no more curves are written: %s", " ".join(str(error).split()))
            self._run = None


def tracker_of(run: Run, tracking: Tracking, step: int) -> Tracker:
    """The tracker of a run, whose curves continue at ``step`` in its ``logs/``.

    Raises MissingDependency for a package that is not installed.
    """
    folder = run.folder / LOGS_FOLDER
    if tracking is Tracking.TENSORBOARD:
        return TensorBoard(folder, step)
    if tracking is Tracking.WANDB:
        name = f"{run.record['data']['name']}-{re.sub('[^0-9]', '', run.record['created'])}"
        return WeightsAndBiases(folder, step, name=name, settings=dict(run.settings))
    return NoTracker()


def require(tracking: Tracking) -> None:
    """Raises MissingDependency, before a training begins, where its tracker's package is not installed."""
    if tracking is Tracking.WANDB and importlib.util.find_spec("wandb") is None:
        raise MissingDependency("wandb", "wandb")

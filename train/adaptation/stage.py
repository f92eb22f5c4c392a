"""Adaptation as a stage of a training run: before anything is fitted, and once for all sittings."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bertrec.text import TextTokenizer
from train.adaptation.unsupervised import AdaptationSettings, adapted_encoder
from train.encoder import Encoder, load_tokenizer
from train.run import Run
from train.settings import FitSettings


def adapted(run: Run, encoder: Encoder, tokenizer: TextTokenizer, texts: Sequence[str], settings: FitSettings) -> Encoder:
    """The encoder after it has read the texts without their labels; kept in the run's folder ``adapted``."""
    mask_id = load_tokenizer(run.encoder_folder).mask_token_id
    wanted = AdaptationSettings(
        settings.adapt, settings.trained_layers, settings.seed, settings.adapt_epochs, settings.batch_size, mask_id=mask_id
    )
    folder = run.folder / "adapted"
    found = adapted_encoder(encoder, tokenizer.tokenise(texts), folder, wanted, minutes=settings.adapt_minutes)
    torch.manual_seed(settings.seed)  # so that a run that found it there goes on alike
    return found

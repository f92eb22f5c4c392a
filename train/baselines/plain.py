"""The plain recipe: the two-label BERT classifier that the field starts from, which reads a wish and an item together.

Devlin et al. (2019) for the fine-tuning; Nogueira and Cho (2019), "Passage Re-ranking with BERT", for ranking by P(fits). It
reads every item anew for every query, so only a sample of queries can be ranked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BatchEncoding, BertForSequenceClassification

from bertrec.signals import LexicalSignal
from train.baselines.contract import Context, PlainSettings
from train.baselines.words import tfidf
from train.encoder import backbone_path, load_tokenizer
from train.examples import Pairs
from train.progress import progress, say

KEYWORDS = 20
"""Words of an item's training texts that describe it where it has no text of its own."""
SCORING_BATCH = 64
"""Pairs scored at once."""


@dataclass
class PlainReport:
    """What the budget sufficed for. epochs: passes over the training texts. queries: ranked so far."""

    epochs: float = 0.0
    complete: bool = False
    queries: int = 0


@dataclass(frozen=True)
class PlainRecipe:
    """A classifier of pairs. tokens: wishes, item texts → what ``model`` reads. item_texts: (items,) what it reads of each."""

    model: BertForSequenceClassification
    tokens: Callable[[Sequence[str], Sequence[str]], BatchEncoding]
    item_texts: list[str]
    settings: PlainSettings
    seed: int
    report: PlainReport
    name: str = "plain recipe"

    def sample(self, queries: Pairs) -> NDArray[np.int64]:
        """Positions of the queries to rank, in order: at most ``max_queries``, drawn by the seed."""
        drawn = np.random.default_rng(self.seed).permutation(len(queries))
        return np.sort(drawn[: self.settings.max_queries])

    def scores(self, queries: Pairs) -> NDArray[np.float32]:
        """(queries, items) log-odds that the item fits, which rank as P(fits) does: a pass of BERT for every pair."""
        scores = np.zeros((len(queries), len(self.item_texts)), np.float32)
        self.model.eval()
        with progress("ranking with the plain recipe", len(queries)) as advance, torch.inference_mode():
            for row, wish in enumerate(queries.texts):
                for start in range(0, len(self.item_texts), SCORING_BATCH):
                    items = self.item_texts[start : start + SCORING_BATCH]
                    logits = self.model(**self.tokens([wish] * len(items), items)).logits  # (pairs, labels)
                    scores[row, start : start + len(items)] = (logits[:, 1] - logits[:, 0]).numpy()
                advance()
        self.report.queries += len(queries)
        return scores


def fit_plain_recipe(context: Context) -> PlainRecipe:
    """Fine-tune on pairs of a training text and its item, and of the text and items drawn at random, by AdamW."""
    settings = context.plain
    with torch.random.fork_rng():
        torch.manual_seed(context.seed)  # the classifier's first weights, and dropout
        model = BertForSequenceClassification.from_pretrained(backbone_path(context.backbone), num_labels=2)
        tokenizer = load_tokenizer(context.backbone)
        longest = min(settings.max_tokens, model.config.max_position_embeddings)

        def tokens(wishes: Sequence[str], items: Sequence[str]) -> BatchEncoding:
            return tokenizer(wishes, items, truncation=True, max_length=longest, padding=True, return_tensors="pt")

        recipe = PlainRecipe(model, tokens, item_texts(context), settings, context.seed, PlainReport())
        _train(recipe, context.examples.train)
    say(f"plain recipe: {recipe.report.epochs:.2f} of {settings.epochs} epochs")
    return recipe


def _train(recipe: PlainRecipe, train: Pairs) -> None:
    """Train until all epochs are done or the time is up, and report how far that was."""
    settings, report = recipe.settings, recipe.report
    random = np.random.default_rng(recipe.seed)
    optimiser = torch.optim.AdamW(recipe.model.parameters(), lr=settings.learning_rate)
    deadline = math.inf if settings.max_minutes is None else time.monotonic() + 60.0 * settings.max_minutes
    drawn = 1 + settings.negatives  # pairs of a text
    steps = math.ceil(len(train) * drawn / settings.batch_size)  # an epoch
    recipe.model.train()
    with progress("fine-tuning the plain recipe", settings.epochs * steps) as advance:
        for epoch in range(settings.epochs):
            candidates = random.integers(len(recipe.item_texts), size=(len(train), drawn))  # (texts, pairs of each)
            candidates[:, 0] = train.items
            labels = (candidates == train.items[:, None]).astype(np.int64).ravel()  # an item drawn may be the right one
            order = random.permutation(candidates.size)
            for step in range(steps):
                if time.monotonic() > deadline:
                    return
                pairs = order[step * settings.batch_size : (step + 1) * settings.batch_size]
                wishes = [train.texts[row] for row in (pairs // drawn).tolist()]
                items = [recipe.item_texts[item] for item in candidates.ravel()[pairs].tolist()]
                loss = recipe.model(**recipe.tokens(wishes, items), labels=torch.from_numpy(labels[pairs])).loss
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                report.epochs = epoch + (step + 1) / steps
                advance(note=f"loss {float(loss.detach()):.2f}")
    report.complete = True


def item_texts(context: Context) -> list[str]:
    """(items,) what the classifier reads of each item: its text, or else title, attributes and the words that tell it best."""
    examples = context.examples
    vectoriser, _ = tfidf(examples.train.texts)
    terms = tuple(vectoriser.get_feature_names_out().tolist())
    lexical = LexicalSignal(terms, vectoriser.idf_.astype(np.float32), np.zeros((len(terms), 0), np.float16))
    texts: list[list[str]] = [[] for _ in range(examples.items)]
    for text, item in zip(examples.train.texts, examples.train.items.tolist(), strict=True):
        texts[item].append(text)
    described = []
    for row, said in zip(examples.catalogue.tolist(), texts, strict=True):
        item = context.dataset.items[row]
        derived = [*item.attributes.values(), " ".join(lexical.keywords(said, KEYWORDS))]
        described.append(item.own_text if item.text else ". ".join(filter(None, [item.title, *dict.fromkeys(derived)])))
    return described

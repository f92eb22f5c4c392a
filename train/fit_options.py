"""The switches of ``python -m train fit`` that say what is done to texts and gradients, and the settings that they amount to."""

from __future__ import annotations

import argparse
from typing import Any

from bertrec.errors import InvalidInput
from train.adversarial import AdversarialSettings, Adversary
from train.augmentation import Augmentation, AugmentationSettings, found_wordnet
from train.multi_task import WEIGHT, HeadsKind, MultiTaskSettings
from train.precision import Precision
from train.settings import OPTIONAL_SIGNALS

ADAPTIVE, NONE = "adaptive", "none"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the switches; without any of them training is as the preset says."""
    parser.add_argument("--without", type=_names, metavar=",".join(OPTIONAL_SIGNALS), help="leave these signals out")
    ways = ",".join(one.value for one in Augmentation)
    parser.add_argument("--augment", type=_names, metavar=ways, help="change half of the training texts, anew in every pass")
    parser.add_argument(
        "--augment-strength", metavar=f"SHARE|{ADAPTIVE}", help="of words changed (0.1); adaptive: follow the validation loss"
    )
    parser.add_argument(
        "--wordnet",
        metavar=f"DIR|{NONE}",
        help="WordNet's dict folder (default: what make data-wordnet fetched, or Debian's wordnet-base, if there); "
        f"{NONE}: synonyms from the encoder's vocabulary alone",
    )
    parser.add_argument("--correct-spelling", action="store_true", help="correct the training texts before they are read")
    parser.add_argument("--weigh-by-sentiment", action="store_true", help="learn less from texts that complain")
    parser.add_argument(
        "--gate-by-sentiment", action="store_true", help="let the gate weigh the signals by whether a text complains, too"
    )
    parser.add_argument(
        "--adversarial", choices=[one.value for one in Adversary], help="learn at the worst place near a text, too"
    )
    parser.add_argument("--adversarial-epsilon", type=float, metavar="SHARE", help="how far, of a text's length (0.02)")
    parser.add_argument("--adversarial-steps", type=int, metavar="N", help="ascents of freelb (3)")
    parser.add_argument("--adversarial-step-size", type=float, metavar="SHARE", help="of an ascent of freelb (0.01)")
    parser.add_argument(
        "--precision", choices=[one.value for one in Precision], help="of matrix products in reading and fine-tuning (fp32)"
    )
    parser.add_argument(
        "--heads", choices=[HeadsKind.MULTI_TASK.value], help="learn sentiment and topics together with the recommendation"
    )
    parser.add_argument(
        "--head-weight",
        action="append",
        default=[],
        metavar="[HEAD=]WEIGHT",
        help=f"of one head's loss, or of every head's ({WEIGHT:g})",
    )


def chosen(given: argparse.Namespace) -> dict[str, Any]:
    """Fields of FitSettings → what the switches ask for; those not given are left out.

    Raises InvalidInput for what is not accepted, and for a switch that means nothing without another.
    """
    fields: dict[str, Any] = {"augmentation": _augmentation(given), "adversarial": _adversarial(given)}
    fields["correct_spelling"] = given.correct_spelling or None
    fields["weigh_by_sentiment"] = given.weigh_by_sentiment or None
    fields["gate_by_sentiment"] = given.gate_by_sentiment or None
    fields["multi_task"] = _multi_task(given)
    fields["without"] = tuple(given.without) if given.without else None
    fields["precision"] = Precision(given.precision) if given.precision else None
    return {name: value for name, value in fields.items() if value is not None}


def _augmentation(given: argparse.Namespace) -> AugmentationSettings | None:
    if given.augment is None:
        if given.augment_strength is not None or given.wordnet is not None:
            raise InvalidInput("--augment-strength and --wordnet mean nothing without --augment; add it, for instance typos,crop")
        return None
    wordnet = None if given.wordnet == NONE else given.wordnet
    if given.wordnet is None and Augmentation.SYNONYMS in given.augment:
        wordnet = found_wordnet()
    adaptive = given.augment_strength == ADAPTIVE
    wanted: dict[str, Any] = {"adaptive": adaptive, "wordnet": None if wordnet is None else str(wordnet)}
    if given.augment_strength is not None and not adaptive:
        try:
            wanted["strength"] = float(given.augment_strength)
        except ValueError:
            raise InvalidInput(
                f"--augment-strength is {given.augment_strength!r}; accepted are {ADAPTIVE} and a number above 0 and up to 1"
            ) from None
    return AugmentationSettings(tuple(given.augment), **wanted)


def _multi_task(given: argparse.Namespace) -> MultiTaskSettings | None:
    if given.heads is None:
        if given.head_weight:
            raise InvalidInput("--head-weight means nothing without --heads multi-task; add it")
        return None
    general, own = WEIGHT, []
    for one in given.head_weight:
        name, _, number = one.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            raise InvalidInput(f"--head-weight is {one!r}; accepted are NUMBER and HEAD=NUMBER, as sentiment=0.2") from None
        if name:
            own.append((name, weight))
        else:
            general = weight
    return MultiTaskSettings(general, tuple(own))


def _adversarial(given: argparse.Namespace) -> AdversarialSettings | None:
    names = ("epsilon", "steps", "step_size")
    wanted = {name: value for name in names if (value := getattr(given, f"adversarial_{name}")) is not None}
    if given.adversarial is None:
        if wanted:
            raise InvalidInput("--adversarial-… options mean nothing without --adversarial; add it: fgm or freelb")
        return None
    if Adversary(given.adversarial) is Adversary.FGM and (ignored := [name for name in names[1:] if name in wanted]):
        raise InvalidInput(f"--adversarial-{ignored[0].replace('_', '-')} is an option of freelb; fgm takes one step of epsilon")
    return AdversarialSettings(Adversary(given.adversarial), **wanted)


def _names(joined: str) -> list[str]:
    return [name.strip() for name in joined.split(",") if name.strip()]

"""When to answer "no good answer": a threshold on how sure the recommender is of its first item, as in selective prediction.

Half of the questions choose what to measure sureness by and where to cut, the other half tells what that is worth (Geifman and
El-Yaniv, Selective classification for deep neural networks, 2017). Some of the questions have no answer in the catalogue at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from bertrec.confidence import SURENESS, Confidence
from bertrec.errors import InvalidBundle, InvalidData, InvalidInput, InvalidRun
from bertrec.tensors import MAX_K, TEXT_SIGNAL
from train.bootstrap import Estimate, bootstrap
from train.data import TEST
from train.evaluate import held_out, run_examples
from train.examples import UNSEEN, Pairs, cleaned
from train.formats import SUFFIXES, read_table
from train.rankers import RunRanker, fused_ranker
from train.records import write_json
from train.run import Run

THRESHOLD_FILE = "threshold.json"
NO_ANSWER = "no answer"
"""Kind of a question that its file gives none."""
ANSWERABLE = "answerable"


@dataclass(frozen=True)
class Questions:
    """What was asked, how it was answered, and how sure that was.

    kinds: ANSWERABLE, or the kind of question that has no answer. best: (n,) int64 index of the first item. right: (n,) bool,
    whether it is the right one. sureness: measure → (n,) float64.
    """

    texts: list[str]
    kinds: list[str]
    best: NDArray[np.int64]
    right: NDArray[np.bool_]
    sureness: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Outcomes:
    """How many questions of one kind came out how; a refusal is right where the first item would have been wrong."""

    answered_right: int
    answered_wrong: int
    refused_rightly: int
    refused_wrongly: int


@dataclass(frozen=True)
class Judgement:
    """A threshold that one half chose, and what the other half says of it.

    measure: a name of SURENESS. auc: that a right first item is surer than a wrong one. outcomes: by kind of question.
    right: share of right decisions. over_answering, over_refusing: that, less the share of always answering, or refusing, paired.
    """

    measure: str
    threshold: float
    chosen_by: int
    auc_chosen: Mapping[str, float]
    auc: float
    outcomes: Mapping[str, Outcomes]
    right: Estimate
    over_answering: Estimate
    over_refusing: Estimate


@dataclass(frozen=True)
class Threshold:
    """What threshold.json holds: the judgement, the one with the halves exchanged, and answers of the half that judged."""

    split: str
    seed: int
    items: int
    judgement: Judgement
    exchanged: Judgement
    examples: Sequence[Mapping[str, object]]


def find_threshold(run: Run, unanswerable: Path) -> Threshold:
    """Choose and judge a threshold on the run's test questions and those in ``unanswerable``; written to threshold.json.

    unanswerable: .jsonl, .csv or .parquet with ``text`` and, if wanted, ``kind``. The halves are drawn by the run's seed, kind by
    kind. Raises InvalidData or InvalidInput for questions that cannot be read, or of which a half is all right or all wrong.
    """
    texts, kinds = _read_unanswerable(unanswerable)
    examples, seed = run_examples(run), int(run.settings["seed"])
    asked = held_out(examples, TEST)
    nothing = Pairs(texts, np.full(len(texts), UNSEEN, np.int64))
    questions = answer(fused_ranker(run), _joined(asked, nothing), [ANSWERABLE] * len(asked) + kinds)
    first, second = halves(questions.kinds, seed)
    judgement = judge(questions, first, second, seed=seed)
    titles = [examples.own_texts[item] for item in questions.best.tolist()]
    found = Threshold(
        split=TEST,
        seed=seed,
        items=examples.items,
        judgement=judgement,
        exchanged=judge(questions, second, first, seed=seed),
        examples=[_example(questions, position, judgement, titles[position]) for position in second.tolist()],
    )
    write_json(run.folder / THRESHOLD_FILE, {"run_created": run.record["created"], **asdict(found)})
    return found


def run_confidence(run: Run) -> Confidence | None:
    """The threshold that was found for a run, for its bundles; None where none was. Raises InvalidRun for another run's."""
    path = run.folder / THRESHOLD_FILE
    if not path.is_file():
        return None
    command = "python -m train threshold --run runs/NAME --unanswerable FILE"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        confidence = Confidence.read(found["judgement"])
        created = found["run_created"]
    except (ValueError, KeyError, TypeError, InvalidBundle) as error:
        raise InvalidRun(
            f"{path} holds no threshold ({type(error).__name__}: {error}). Delete it, or find it again: {command}"
        ) from None
    if created != run.record["created"]:
        raise InvalidRun(
            f"{path} was found for a run of {created}, and this one is of {run.record['created']}. Delete it: {command}"
        )
    return confidence


def answer(ranker: RunRanker, asked: Pairs, kinds: list[str]) -> Questions:
    """Ask the run's recommender; the items of a question's own history are left out.

    Sureness is taken over the best MAX_K items, which are what the served ranker hands on.
    """
    both = []
    for one in (ranker, ranker.alone(TEXT_SIGNAL)):
        scores = np.array(one.scores(asked), np.float32)  # (questions, items)
        for row, history in enumerate(asked.histories):
            scores[row, list(history)] = -np.inf
        both.append(scores)
    if both[0].shape[1] > MAX_K:
        rest = np.argsort(-both[0], axis=1, kind="stable")[:, MAX_K:]
        for scores in both:
            np.put_along_axis(scores, rest, np.float32(-np.inf), axis=1)
    best = both[0].argmax(axis=1)
    sureness = {name: measure(*both) for name, measure in SURENESS.items()}
    return Questions(asked.texts, kinds, best, best == asked.items, sureness)


def halves(kinds: Sequence[str], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the two halves, sorted; of every kind the second has one more where the number is odd."""
    random = np.random.default_rng([seed, 5])
    first: list[int] = []
    for kind in sorted(set(kinds)):
        having = np.flatnonzero([one == kind for one in kinds])
        first.extend(random.permutation(having)[: len(having) // 2].tolist())
    return np.asarray(sorted(first), np.int64), np.setdiff1d(np.arange(len(kinds)), first)


def judge(questions: Questions, chosen_by: NDArray[np.int64], judged_by: NDArray[np.int64], *, seed: int) -> Judgement:
    """Choose measure and threshold on some questions, judge them on others.

    The measure is the one of the highest area under the ROC curve, the threshold the one of the most right decisions. Raises
    InvalidData where either half is all right or all wrong.
    """
    for half in (chosen_by, judged_by):
        if len(set(questions.right[half].tolist())) < 2:
            raise InvalidData(
                f"of {len(half)} questions, {int(questions.right[half].sum())} are answered right; accepted is a half with right "
                "and wrong answers, between which a threshold can tell: give more questions, or other ones"
            )
    areas = {name: float(roc_auc_score(questions.right[chosen_by], of[chosen_by])) for name, of in questions.sureness.items()}
    measure = max(areas, key=lambda name: areas[name])
    sureness = questions.sureness[measure]
    threshold = best_threshold(sureness[chosen_by], questions.right[chosen_by])
    right, answered = questions.right[judged_by], sureness[judged_by] >= threshold
    kinds = [questions.kinds[position] for position in judged_by.tolist()]
    decided = (right == answered).astype(np.float64)
    share, over_answering, over_refusing = bootstrap(np.stack([decided, decided - right, decided - ~right]), seed)
    return Judgement(
        measure=measure,
        threshold=threshold,
        chosen_by=len(chosen_by),
        auc_chosen=areas,
        auc=float(roc_auc_score(right, sureness[judged_by])),
        outcomes={kind: _outcomes(right, answered, [one == kind for one in kinds]) for kind in dict.fromkeys(kinds)},
        right=share,
        over_answering=over_answering,
        over_refusing=over_refusing,
    )


def best_threshold(sureness: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """The threshold of the most right decisions, midway between two questions; the highest of equals, which answers least."""
    order = np.argsort(sureness)
    values = sureness[order]
    # Below cut c are c questions: refused rightly where wrong; the others are answered right where right.
    decisions = np.concatenate([[0], np.cumsum(~right[order])]) + right.sum() - np.concatenate([[0], np.cumsum(right[order])])
    allowed = np.concatenate([[True], values[1:] > values[:-1], [True]])  # no cut between equals
    cut = int(np.flatnonzero(allowed & (decisions == decisions[allowed].max()))[-1])
    if cut == 0:
        return float(values[0])
    return float((values[cut - 1] + values[cut]) / 2 if cut < len(values) else np.nextafter(values[-1], np.inf))


def _outcomes(right: NDArray[np.bool_], answered: NDArray[np.bool_], of_kind: Sequence[bool]) -> Outcomes:
    these = np.asarray(of_kind)
    counted = (right & answered, ~right & answered, ~right & ~answered, right & ~answered)
    return Outcomes(*(int((one & these).sum()) for one in counted))


def _example(questions: Questions, position: int, judgement: Judgement, answer_text: str) -> dict[str, object]:
    sureness = float(questions.sureness[judgement.measure][position])
    return {
        "text": questions.texts[position],
        "kind": questions.kinds[position],
        "best": answer_text,
        "right": bool(questions.right[position]),
        "sureness": sureness,
        "answered": sureness >= judgement.threshold,
    }


def _joined(first: Pairs, second: Pairs) -> Pairs:
    return Pairs(
        first.texts + second.texts,
        np.concatenate([first.items, second.items]),
        first.histories + second.histories,
        np.concatenate([first.rows, second.rows]),
    )


def _read_unanswerable(path: Path) -> tuple[list[str], list[str]]:
    if path.suffix not in SUFFIXES or not path.is_file():
        raise InvalidInput(f"unanswerable is {str(path)!r}; accepted is a file that ends in {', '.join(SUFFIXES)}")
    table = read_table(path, required=("text",))
    texts = [cleaned(str(text or "")) for text in table.column("text")]
    if "" in texts:
        raise table.error(texts.index(""), "text", found="nothing to read", accepted="a question")
    kinds = [str(kind or NO_ANSWER) for kind in table.column("kind")]
    if ANSWERABLE in kinds:
        raise table.error(kinds.index(ANSWERABLE), "kind", found=repr(ANSWERABLE), accepted="the name of a kind without answers")
    return texts, kinds

"""How a run ranks with its students' vectors instead of its own, in every way of asking.

On texts as they are written a student may lose nothing; where words are few, other or misspelt, what it did not learn shows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from typing import Any

from torch import nn

from bertrec.text import TextTokenizer
from train.data import TEST
from train.evaluate import DIVERSITY, held_out, primary_attribute, query_context, ranked, run_dataset, run_examples
from train.measure import Answers, Subject, differences, measured, whole
from train.progress import say
from train.queries import KINDS
from train.rankers import FUSED, InterestVectors, fused_ranker
from train.run import Run
from train.students import Student, open_students

METRICS = ("ndcg_at_10", "recall_at_10")


def measure_students(run: Run) -> dict[str, Any]:
    """``students``: name → minutes, parameters, cosine on validation. ``kinds``: way of asking → queries, and ranker → metrics.

    Each metric has its value and interval, and ``behind``, the run's own minus it, with its paired interval.
    """
    dataset = run_dataset(run)
    examples = run_examples(run, dataset)
    subject = Subject(dataset, examples, primary_attribute(dataset), int(run.settings["seed"]), run.array(DIVERSITY))
    held = held_out(examples, TEST)
    context = query_context(run, subject, held, list(KINDS))
    tokenizer = TextTokenizer(run.tokenizer_file, run.settings["max_tokens"])
    networks = {student.name: student.load() for student in open_students(run)}
    fused = fused_ranker(run)
    rankers = [
        fused,
        *(
            dataclasses.replace(fused, name=name, encode=InterestVectors(network, tokenizer))
            for name, network in networks.items()
        ),
    ]
    kinds = {}
    for kind, ask in KINDS.items():
        queries = ask(held, context)
        if len(queries):
            say(f"{kind}: {len(rankers)} encoders, {len(queries):,} queries")
            answers = measured(kind, queries, {ranker.name: ranked(ranker, queries) for ranker in rankers}, subject)
            kinds[kind] = {"queries": len(queries), "rankers": _rankers(answers, subject)}
    return {"students": {student.name: _about(student, networks[student.name]) for student in open_students(run)}, "kinds": kinds}


def _rankers(answers: Answers, subject: Subject) -> dict[str, dict[str, Any]]:
    found, behind = whole(answers, subject).rankers, differences(answers, FUSED, subject)
    return {
        name: {
            metric: {**asdict(metrics[metric]), "behind": asdict(behind[name][metric]) if name in behind else None}
            for metric in METRICS
        }
        for name, metrics in found.items()
    }


def _about(student: Student, network: nn.Module) -> dict[str, Any]:
    return {
        "minutes": student.record["minutes"],
        "cosine": student.record["validation"]["cosine"],
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }

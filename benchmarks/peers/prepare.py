"""Writing the material of all peers (material.py), from a run. Loads torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.catalogue import STUDENT
from benchmarks.peers.material import Material
from benchmarks.peers.setup import FUSED_FILE, ITEMS_FILE, MODEL_FILE, TEXTS_FILE, model_folder
from bertrec.errors import InvalidInput
from bertrec.tensors import ATTENTION_MASK, BATCH, INPUT_IDS, TEXT_SIGNAL, TOKENS, ModelSpec, TensorSpec
from bertrec.text import TextTokenizer
from export.encoder import example_tokens, fuse, trace
from export.networks import Networks
from train.encoder import Encoder
from train.evaluate import held_out, run_examples
from train.progress import say
from train.rankers import InterestVectors
from train.records import write_json
from train.run import Run

REFERENCE_FILE, STUDENTS_FILE = "reference.npy", "reference-{}.npy"
CALIBRATION = 128
SEED = 0


class _HiddenStates(torch.nn.Module):
    """Token ids and mask → the last hidden states, as a library that pools itself wants them."""

    def __init__(self, bert: torch.nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:  # noqa: ANN401  # of transformers
        """(batch, tokens) twice → (batch, tokens, hidden)."""
        return self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def prepare(run: Run, folder: Path, texts: int, student: str = STUDENT) -> Material:
    """Write the folder, or read it where it is there for this run and its student.

    texts: how many of the test split, in an order drawn by seed. student: written too where the run has
    it. Raises InvalidInput where the split has not so many.
    """
    if texts > run.record["texts"]["test"]:
        raise InvalidInput(f"rounds × together is {texts:,}; accepted is at most the {run.record['texts']['test']:,} test texts")
    networks = Networks(run)
    students = {name: networks.fingerprint(name) for name in networks.students if name == student}
    asked = {"data": run.record["data"], "created": run.record["created"], "students": students}
    if _known(folder) != asked:
        say(f"writing the run's encoder, and its vectors of the test texts, to {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _write(networks, folder, asked)
    content = json.loads((folder / TEXTS_FILE).read_text(encoding="utf-8"))
    return Material(
        folder=folder,
        texts=content["texts"][:texts],
        items=np.asarray(content["items"][:texts], np.int64),
        reference=np.load(folder / REFERENCE_FILE, allow_pickle=False)[:texts],
        item_vectors=np.load(folder / ITEMS_FILE, allow_pickle=False),
        max_tokens=int(run.settings["max_tokens"]),
        others=content["calibration"],
        students={name: np.load(folder / STUDENTS_FILE.format(name), allow_pickle=False)[:texts] for name in students},
    )


def _known(folder: Path) -> Any:  # noqa: ANN401  # JSON
    file = folder / TEXTS_FILE
    return json.loads(file.read_text(encoding="utf-8"))["asked"] if file.is_file() else None


def _write(networks: Networks, folder: Path, asked: dict[str, Any]) -> None:
    run = networks.run
    examples = run_examples(run)
    queries = held_out(examples, "test")
    queries = queries.take(np.random.default_rng(SEED).permutation(len(queries)))
    _write_model(run, run.encoder_folder, model_folder(folder))
    np.save(folder / ITEMS_FILE, np.asarray(run.array(f"items/{TEXT_SIGNAL}"), np.float32))
    np.save(folder / REFERENCE_FILE, InterestVectors.of(run)(queries.texts))
    for name in asked["students"]:
        student = networks.students[name]
        _write_model(run, student.folder / "encoder", model_folder(folder, name))
        tokenizer = TextTokenizer(run.tokenizer_file, run.settings["max_tokens"])
        np.save(folder / STUDENTS_FILE.format(name), InterestVectors(student.load(), tokenizer)(queries.texts))
    content = {
        "asked": asked,
        "texts": queries.texts,
        "items": queries.items.tolist(),
        "calibration": held_out(examples, "validation").texts[:CALIBRATION],
    }
    write_json(folder / TEXTS_FILE, content)  # last: a folder without it is not finished


def _write_model(run: Run, source: Path, folder: Path) -> None:
    """source: with the weights, of the run's encoder or of a student, which has the run's tokenizer."""
    shutil.copytree(run.encoder_folder, folder)
    shutil.copytree(source, folder, dirs_exist_ok=True)
    max_tokens = int(run.settings["max_tokens"])
    settings_file = folder / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    write_json(settings_file, {**settings, "model_max_length": max_tokens})
    encoder = Encoder.load(source, attention="eager")
    _write_modules(folder, encoder.hidden, max_tokens)
    states = TensorSpec("last_hidden_state", "FP32", (BATCH, TOKENS, encoder.hidden))
    trace(
        _HiddenStates(encoder.bert),
        example_tokens(),
        folder / MODEL_FILE,
        spec=ModelSpec("encoder", (INPUT_IDS, ATTENTION_MASK), (states,)),
    )
    sizes = {"heads": encoder.heads, "hidden": encoder.hidden, "layers": encoder.layers}
    fuse(folder / MODEL_FILE, folder / FUSED_FILE, **sizes)


def _write_modules(folder: Path, hidden: int, max_tokens: int) -> None:
    """What sentence-transformers reads beside transformers' files: the mean over the tokens, scaled to length 1."""
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": row, "name": str(row), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for row, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True})
    (folder / "2_Normalize").mkdir()

"""``confident`` in answers: the same from Triton, the edge, the edge server and the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bertrec.session_options import SessionOptions
from client import Answer, Recommender
from client.__main__ import main
from client.rendering import as_record, as_table
from client.server.model import EdgeModel
from tests.client.server.running import running
from tests.tiny import item_text

if TYPE_CHECKING:
    from serving.triton import TritonServer

SURE, UNSURE = item_text(6), "nothing that the catalogue knows"


@pytest.fixture(scope="module")
def answers(full_bundle: Path) -> list[Answer]:
    with Recommender(bundle=full_bundle) as edge:
        return edge.recommend([SURE, UNSURE])


def test_the_edge_says_it(answers: list[Answer]) -> None:
    assert [answer.confident for answer in answers] == [True, False]


def test_triton_says_the_same(full_triton: TritonServer) -> None:
    with Recommender(full_triton.grpc_url) as recommender:
        assert [answer.confident for answer in recommender.recommend([SURE, UNSURE])] == [True, False]


def test_the_edge_server_says_the_same(full_bundle: Path) -> None:
    with running(EdgeModel(full_bundle, session=SessionOptions(1))) as server:
        found = server.recommend({"text": [SURE, UNSURE]}).json["answers"]
        assert [answer["confident"] for answer in found] == [True, False]
        page = server.get("/page.js").body.decode()
        assert 'answer.confident === false ? "Perhaps no good answer. "' in page


def test_the_command_line_says_it(full_bundle: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for text, bundle in ((SURE, full_bundle), (UNSURE, full_bundle), (UNSURE, tiny_bundle)):
        assert main(["recommend", text, "--bundle", str(bundle), "--json"]) == 0
        said.append(json.loads(capsys.readouterr().out)["confident"])
    assert said == [True, False, None]
    assert main(["recommend", UNSURE, "--bundle", str(full_bundle)]) == 0
    assert "perhaps no good answer: even the first item is below the bundle's threshold" in capsys.readouterr().out


def test_only_an_answer_that_is_not_sure_is_warned_of(answers: list[Answer]) -> None:
    warned = [
        "no good answer" in as_table(answer)
        for answer in (answers[0], answers[1], replace(answers[1], confident=None), replace(answers[1], items=()))
    ]
    assert warned == [False, True, False, False]
    assert as_record(UNSURE, answers[1])["confident"] is False

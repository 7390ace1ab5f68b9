"""The dialects over the real engine: whatever the model says, it is well told."""

from pathlib import Path
from typing import Any

import pytest

from tests.house import House
from tests.make_gguf import tweak

GRAMMAR = {"type": "json_schema", "schema": {"type": "object", "properties": {"a": {"enum": [1]}}}}


def test_one_question_in_three_dialects_gets_one_answer(house: House) -> None:
    text = house.chat(max_tokens=12).json["choices"][0]["message"]["content"]
    common = {"model": "smol", "temperature": 0}
    said = {"messages": [{"role": "user", "content": "What is gravity?"}], "max_tokens": 12}
    message = house.call("POST", "/v1/messages", {**common, **said}).json
    assert message["content"] == [{"type": "text", "text": text}]
    asked = {"input": "What is gravity?", "max_output_tokens": 12, "store": False}
    response = house.call("POST", "/v1/responses", {**common, **asked}).json
    assert response["output"][0]["content"][0]["text"] == text
    assert response["usage"]["output_tokens"] == message["usage"]["output_tokens"] == 12
    read = message["usage"]["input_tokens"] + message["usage"]["cache_read_input_tokens"]
    assert response["usage"]["input_tokens"] == read


def test_streams_of_the_real_engine_end_as_they_should(house: House) -> None:
    fields = {"model": "smol", "temperature": 0, "stream": True}
    said = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 6}
    told = house.call("POST", "/v1/messages", {**fields, **said}).body
    assert told.rstrip().endswith(b'event: message_stop\ndata: {"type":"message_stop"}')
    asked = {"input": "Hi", "max_output_tokens": 6, "store": False}
    told = house.call("POST", "/v1/responses", {**fields, **asked}).body
    assert b"event: response.incomplete" in told
    assert told.endswith(b"data: [DONE]\n\n")


def test_a_schema_holds_in_every_dialect(house: House) -> None:
    said = {"messages": [{"role": "user", "content": "Go"}], "max_tokens": 30}
    body = {"model": "smol", **said, "output_config": {"format": GRAMMAR}}
    message = house.call("POST", "/v1/messages", body).json
    assert message["content"][0]["text"].startswith("{")
    form = {"format": {**GRAMMAR, "name": "a"}}
    body = {"model": "smol", "input": "Go", "text": form, "max_output_tokens": 30, "store": False}
    response = house.call("POST", "/v1/responses", body).json
    assert response["output"][0]["content"][0]["text"].startswith("{")


@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
def test_a_key_may_come_in_either_header(house: House, header: str) -> None:
    key = house.key if header == "x-api-key" else f"Bearer {house.key}"
    listed = house.call("GET", "/v1/models", key=None, headers={header: key})
    assert listed.status == 200
    wrong = house.call("GET", "/v1/models", key=None, headers={header: "Bearer nonsense"})
    assert wrong.status == 401


def test_the_records_name_the_dialect_and_count_once(house: House) -> None:
    said = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    answer = house.call("POST", "/v1/messages", {"model": "smol", **said})
    record = house.audit(id=answer.headers["request-id"])[0]
    assert (record["dialect"], record["tokens_out"]) == ("messages", 3)
    counted = house.call("POST", "/v1/messages/count_tokens", {"model": "smol", **said})
    record = house.audit(id=counted.headers["request-id"])[0]
    assert (record["action"], record.get("tokens_in", 0)) == ("completion:count", 0)
    assert counted.json == {"input_tokens": counted.json["input_tokens"]}


def test_documents_are_ordered_by_embeddings_where_no_reranker_is(house: House) -> None:
    documents = ["The cat sat on the mat.", "Quarterly revenue rose by ten percent."]
    body = {"model": "smol", "query": "The cat sat on the mat.", "documents": documents}
    answer = house.call("POST", "/v1/rerank", {**body, "return_documents": True}).json
    assert answer["method"] == "embedding"
    best, other = answer["results"]
    assert (best["index"], best["document"]["text"]) == (0, documents[0])
    assert best["relevance_score"] == pytest.approx(1.0, abs=0.01)
    assert other["relevance_score"] < best["relevance_score"]
    assert answer["usage"]["prompt_tokens"] > 10


def test_a_reranker_is_asked_to_rerank(house: House, weights: Path, tmp_path: Path) -> None:
    """The starter, said to be a reranker: its scores mean nothing, but the engine gives them."""
    copy = tweak(weights, tmp_path / "ranker.gguf", {"llama.pooling_type": 4})
    house.cli("model", "import", str(copy), "--name", "ranker")
    house.cli("deploy", "ranker", "--context", "512", "--wait")
    try:
        body = {"model": "auto", "query": "cats", "documents": ["dogs", "cats"], "top_n": 1}
        answer = house.call("POST", "/v1/rerank", body)
        assert answer.headers["x-freehold-deployment"] == "ranker"
        assert answer.json["method"] == "reranker"
        assert [result["index"] for result in answer.json["results"]] in ([0], [1])
    finally:
        house.cli("undeploy", "ranker")
        house.cli("model", "remove", "ranker", "--yes")


def test_inference_protocol_gives_what_embeddings_gives(house: House) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a cat", "a dog"]}
    path = "/v2/models/smol/versions/1/infer"
    answer = house.call("POST", path, {"inputs": [tensor]}).json
    assert (answer["model_name"], answer["model_version"]) == ("smol", "1")
    output: dict[str, Any] = answer["outputs"][0]
    assert (output["shape"], output["datatype"]) == ([2, 576], "FP32")
    vectors = house.call("POST", "/v1/embeddings", {"model": "smol", "input": tensor["data"]}).json
    assert output["data"][576:] == pytest.approx(vectors["data"][1]["embedding"], abs=0.01)
    about = house.call("GET", "/v2/models/smol").json
    assert (about["versions"], about["inputs"][0]["datatype"]) == (["1"], "BYTES")


def test_dialects_pass_what_they_do_not_know_to_the_engine(house: House) -> None:
    said = {"messages": [{"role": "user", "content": "Say a colour"}], "max_tokens": 9}
    body = {"model": "smol", **said, "grammar": 'root ::= "green"'}
    assert house.call("POST", "/v1/messages", body).json["content"][0]["text"] == "green"
    body = {"model": "smol", "input": "x", "grammar": 'root ::= "green"', "store": False}
    response = house.call("POST", "/v1/responses", body).json
    assert response["output"][0]["content"][0]["text"] == "green"

"""How an app reaches a deployed Elle: what is shown of it, and what is sent."""

import openai
import pytest
from contract import Server
from contract.runpod import Chat

from elle.base.errors import ElleError
from renting.app import App

QUESTION = {"messages": [{"role": "user", "content": "political 40"}], "max_tokens": 9}


def test_neither_a_dry_run_nor_an_apps_variables_show_the_key_and_nothing_is_sent(monkeypatch):
    monkeypatch.setenv("LFBM_API_KEY", "a-key-that-must-not-be-seen")
    texts = []
    app = App("https://nowhere.invalid/v2/e1/openai/v1", "elle")
    client = app.client(dry_run=True, say=texts.append)
    answer = client.chat.completions.create(model=app.model, **QUESTION)
    assert "nothing was sent" in answer.choices[0].message.content
    (text,) = texts
    assert text.startswith(f"POST {app.endpoint}/chat/completions\nAuthorization: Bearer $LFBM_API_KEY")
    assert "political 40" in text
    assert "a-key" not in text
    lines = App("https://api.runpod.ai/v2/e1/openai/v1", "elle").variables().splitlines()
    assert lines[:2] == ["LFBM_ENDPOINT=https://api.runpod.ai/v2/e1/openai/v1", "LFBM_API_KEY=$RUNPOD_API_KEY"]
    for address in ("http://nowhere.invalid/v1", "https://user:word@nowhere.invalid/v1"):
        with pytest.raises(ElleError, match="must begin with https:// and hold no user"):
            App(address, "elle").client()


@pytest.mark.parametrize(
    ("variable", "place"), [("LFBM_API_KEY", "LFBM_ENDPOINT"), ("RUNPOD_API_KEY", "RUNPOD_ENDPOINT_BASE_URL")]
)
def test_an_endpoint_is_asked_with_the_key_that_belongs_to_it(monkeypatch, variable, place):
    for name in ("LFBM_API_KEY", "RUNPOD_API_KEY", "LFBM_ENDPOINT", "RUNPOD_ENDPOINT_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "secret-1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # the key went to it in the clear
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(ElleError, match="no key belongs"):
        App("https://nowhere.invalid/v1", "elle").client()
    with Server(Chat()) as server:
        monkeypatch.setenv(place, server.url)
        app = App(f"{server.url}/v2/e1/openai/v1", "elle")
        assert app.client().chat.completions.create(model=app.model, **QUESTION).choices[0].message.content == "{}"
        request = server.requests[0]
        with Server(Chat()) as other:
            server.fail("chat", status=307, headers={"Location": f"{other.url}/v2/e1/openai/v1/chat/completions"})
            with pytest.raises(openai.APIStatusError):
                app.client().chat.completions.create(model=app.model, **QUESTION)
            assert other.requests == []
    assert request.token == "secret-1"
    assert request.json() == {"model": "elle"} | QUESTION

"""Requests: every way a server can fail becomes one error of ours that says what and which."""

from __future__ import annotations

import gzip
import json
import pickle

import pytest
from fake_servers import HTML, STATS, FakeServer, RawServer, closed_port, silent

from comfynb.backends.comfyui import Address
from comfynb.backends.comfyui import http as http_module
from comfynb.backends.comfyui.http import Http, NotSentError
from comfynb.backends.comfyui.rejection import node_errors, rejection
from comfynb.backends.comfyui.socket import probe
from comfynb.errors import (
    AccessDeniedError,
    NotComfyUIError,
    PromptRejectedError,
    ServerError,
    ServerUnreachableError,
)


@pytest.fixture(autouse=True, params=["our transport", "httpx's"])
def _transport(request, monkeypatch):
    """Every promise holds with both: ours for this machine, httpx's for all others."""
    if request.param == "httpx's":
        monkeypatch.setattr(http_module, "LoopbackTransport", lambda: None)


async def ask(url: str, path: str = "/x", *, timeout: float = 30.0, token: str | None = None):
    client = Http(Address.parse(url, token=token), timeout=timeout)
    try:
        return await client.get_json(path)
    finally:
        await client.aclose()


async def prompt(url: str, **options):
    client = Http(Address.parse(url), **options)
    try:
        return await client.post_prompt({"prompt": {}})
    finally:
        await client.aclose()


async def test_json_with_bare_nan_is_taken():
    with FakeServer({"/x": b'{"a": NaN, "b": -Infinity}'}) as server:
        body = await ask(server.url)
    assert body["a"] != body["a"]
    assert body["b"] == float("-inf")


async def test_token_and_params_go_with_every_request():
    with FakeServer({"/x": {}}) as server:
        client = Http(Address.parse(server.url + "/?key=k", token="t"))
        await client.get_json("/x", {"a": "b c"})
        await client.post("/x", {})
        await client.renew()
        await client.get_bytes("/x", {})
        await client.aclose()
    assert [r[2]["authorization"] for r in server.requests] == ["Bearer t"] * 3
    assert [r[1] for r in server.requests] == ["/x?key=k&a=b+c", "/x?key=k", "/x?key=k"]


async def test_a_closed_port_was_not_reached_so_sending_again_is_safe():
    port = closed_port()
    with pytest.raises(NotSentError, match=rf"nobody answers at 127\.0\.0\.1:{port}"):
        await ask(f"http://127.0.0.1:{port}")


async def test_a_server_that_hangs_up_or_hangs_is_unreachable_but_may_have_heard():
    def hang_up(connection):
        connection.recv(4096)
        connection.close()

    with (
        RawServer(hang_up) as server,
        pytest.raises(ServerUnreachableError, match=r"broke off .* POST /prompt") as raised,
    ):
        await prompt(server.url)
    assert not isinstance(raised.value, NotSentError)
    with (
        RawServer(silent) as server,
        pytest.raises(ServerUnreachableError, match="ReadTimeout") as raised,
    ):
        await prompt(server.url, timeout=0.2)
    assert not isinstance(raised.value, NotSentError)


async def test_what_is_no_http_is_unreachable():
    def talk(connection):
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        silent(connection)

    with RawServer(talk) as server, pytest.raises(ServerUnreachableError, match="broke off"):
        await ask(server.url, timeout=0.2)


async def test_html_is_quoted_and_not_taken_for_a_comfyui():
    with FakeServer(default=HTML) as server, pytest.raises(NotComfyUIError) as raised:
        await ask(server.url, "/system_stats")
    text = str(raised.value)
    assert "It works!" in text
    assert server.url.removeprefix("http://") in text
    assert "is this the address of a ComfyUI?" in text


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_access_names_the_token(status):
    with (
        FakeServer(default=(status, b"")) as server,
        pytest.raises(AccessDeniedError, match=r"token=\.\.\.") as raised,
    ):
        await ask(server.url, token="sekret")
    assert raised.value.status == status
    assert raised.value.server in server.url
    assert "sekret" not in str(raised.value)


async def test_a_server_error_quotes_the_server_shortened():
    with (
        FakeServer(default=(500, b"Server got itself in trouble " + b"x" * 10_000)) as server,
        pytest.raises(ServerError, match="got itself in trouble") as raised,
    ):
        await ask(server.url)
    assert raised.value.status == 500
    assert len(str(raised.value)) < 500


async def test_a_redirect_is_not_followed_with_our_token():
    with FakeServer({"/x": {}}) as other:
        there = {"Location": other.url + "/x"}
        with (
            FakeServer(default=(302, b"", there)) as server,
            pytest.raises(ServerError, match="302"),
        ):
            await ask(server.url, token="sekret")
    assert other.requests == []


async def test_an_answer_beyond_the_limit_is_broken_off(monkeypatch):
    monkeypatch.setattr(http_module, "MAX_BYTES", 1000)
    zipped = gzip.compress(b" " * 100_000)
    answers = {
        "/declared": b" " * 2000,
        "/zipped": (200, zipped, {"Content-Encoding": "gzip"}),
        "/fits": b'"' + b"x" * 900 + b'"',
    }
    assert len(zipped) < 1000
    with FakeServer(answers) as server:
        for path in ("/declared", "/zipped"):
            with pytest.raises(ServerUnreachableError, match="too large"):
                await ask(server.url, path)
        assert len(await ask(server.url, "/fits")) == 900


async def test_an_endless_answer_is_broken_off(monkeypatch):
    monkeypatch.setattr(http_module, "MAX_BYTES", 100_000)

    def talk(connection):
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"1000\r\n" + b" " * 4096 + b"\r\n")

    with RawServer(talk) as server, pytest.raises(ServerUnreachableError, match="too large"):
        await ask(server.url)


# -- POST /prompt

REFUSED = {
    "error": {
        "type": "prompt_outputs_failed_validation",
        "message": "Prompt outputs failed validation",
        "details": "",
        "extra_info": {},
    },
    "node_errors": {
        "3": {
            "errors": [
                {"type": "value_smaller_than_min", "message": "Too small", "details": "steps: 0"}
            ],
            "dependent_outputs": ["9"],
            "class_type": "KSampler",
        }
    },
}


async def test_a_refused_graph_names_node_class_and_reason():
    with FakeServer(default=(400, REFUSED)) as server, pytest.raises(PromptRejectedError) as raised:
        await prompt(server.url)
    error = raised.value
    assert (error.node, error.node_type) == ("3", "KSampler")
    assert error.kind == "prompt_outputs_failed_validation"
    assert str(error) == "Prompt outputs failed validation: Too small (steps: 0)"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "no reason given"),
        (b"<html>bad gateway</html>", "<html>bad gateway</html>"),
        (b"[]", "[]"),
        (b'{"error": "plain"}', '{"error": "plain"}'),
        (b'{"error": {"message": "No prompt", "details": "give one"}}', "No prompt (give one)"),
        (b'{"error": {}, "node_errors": {"1": 5, "2": {"errors": [7]}}}', "the graph was refused"),
        (b'{"error": {"message": null}, "node_errors": []}', "the graph was refused"),
        (b"[" * 100_000, "[[[["),
    ],
)
def test_a_refusal_of_any_shape_is_told(body, text):
    error = rejection(body, "gpu")
    assert text in str(error)
    assert len(str(error)) < 1000
    assert error.server == "gpu"


def test_a_refusal_with_thousands_of_node_errors_is_cut():
    many = {str(n): REFUSED["node_errors"]["3"] for n in range(5000)}
    text = str(rejection(json.dumps({"error": {}, "node_errors": many}).encode(), "gpu"))
    assert len(text) < 4000
    assert "Too small (steps: 0)" in text


def test_malformed_node_errors_are_passed_over():
    assert node_errors(None) == node_errors([]) == node_errors({"1": "x"}) == []
    assert node_errors({"1": {"errors": 3}}) == []
    assert [error[:3] for error in node_errors({"1": {"errors": [{}]}})] == [("1", "?", "invalid")]


async def test_an_answer_that_is_no_mapping_is_a_fault_of_the_server():
    with FakeServer(default=[1, 2]) as server, pytest.raises(ServerError, match="with a list"):
        await prompt(server.url)


# -- who is there


async def info(url: str):
    address = Address.parse(url)
    client = Http(address)
    try:
        return await probe(address, client)
    finally:
        await client.aclose()


async def test_a_comfyui_says_its_version_and_device():
    with FakeServer({"/system_stats": STATS}) as server:
        found = await info(server.url)
    assert (found.version, found.device) == ("0.3.75", "cpu")
    assert found.label in server.url


@pytest.mark.parametrize(
    "stats",
    [[], {}, {"system": {}}, {"system": [], "devices": []}, {"system": {}, "devices": {}}, None, 7],
)
async def test_other_json_is_no_comfyui(stats):
    with (
        FakeServer({"/system_stats": stats}) as server,
        pytest.raises(NotComfyUIError, match="not as a ComfyUI does"),
    ):
        await info(server.url)


async def test_a_comfyui_without_devices_and_version_is_one():
    with FakeServer({"/system_stats": {"system": {}, "devices": [None, 3]}}) as server:
        found = await info(server.url)
    assert (found.version, found.device) == ("", "")


@pytest.mark.parametrize("status", [302, 404, 405])
async def test_a_web_server_without_system_stats_is_no_comfyui(status):
    with (
        FakeServer(default=(status, HTML)) as server,
        pytest.raises(NotComfyUIError, match=f"{status}"),
    ):
        await info(server.url)


async def test_a_comfyui_behind_a_proxy_that_is_just_starting_can_be_tried_again():
    with (
        FakeServer(default=(502, b"Bad Gateway")) as server,
        pytest.raises(ServerError, match="502"),
    ):
        await info(server.url)


def test_errors_survive_a_process_boundary():
    error = rejection(b"", "gpu")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.server, again.kind) == (str(error), "gpu", error.kind)

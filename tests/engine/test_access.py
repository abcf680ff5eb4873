"""Origin, Host and token."""

import aiohttp
import pytest

from comfynb.engine.access import is_loopback, same_origin

HERE = "127.0.0.1:8188"


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        (HERE, None, True),
        (None, "http://evil.example", True),
        (HERE, "http://127.0.0.1:8188", True),
        (HERE, "https://127.0.0.1:8188", True),
        (HERE, "http://127.0.0.1", True),
        (HERE, "null", True),
        (HERE, "http://localhost:8188", False),
        (HERE, "http://127.0.0.1:3000", False),
        (HERE, "http://evil.example", False),
        (HERE, "http://evil.example:8188", False),
        (HERE, "http://[::1]:8188", False),
        (HERE, "http://[", False),
        (HERE, "http://127.0.0.1:99999", False),
        ("localhost:8188", "http://localhost:8188", True),
        ("[::1]:8188", "http://[::1]:8188", True),
        ("[::1]:8188", "http://evil.example", False),
        ("evil.example", "http://other.example", True),
    ],
)
def test_other_pages_are_refused(host, origin, allowed):
    assert same_origin(host, origin) is allowed


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("192.168.1.2", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_loopback_is_told_from_other_hosts(host, loopback):
    assert is_loopback(host) is loopback


async def test_every_route_wants_the_token(engine):
    async with aiohttp.ClientSession(engine.url) as stranger:
        for path in ("/system_stats", "/api/prompt", "/view?filename=x", "/nope", "/"):
            async with stranger.get(path) as answer:
                assert answer.status == 401
                assert (await answer.json())["error"]["type"] == "unauthorized"
                assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer x", "Basic {token}", "Bearer {token}x"])
async def test_a_wrong_token_is_refused(engine, value):
    headers = {"Authorization": value.format(token=engine.token)}
    async with (
        aiohttp.ClientSession(engine.url, headers=headers) as stranger,
        stranger.get("/prompt") as answer,
    ):
        assert answer.status == 401


async def test_the_socket_wants_the_token(engine):
    async with aiohttp.ClientSession(engine.url) as stranger:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await stranger.ws_connect("/ws")
    assert refused.value.status == 401


async def test_the_token_opens_everything(owner):
    assert (await owner.get("/prompt"))[0] == 200
    await owner.connect("me")


async def test_another_page_is_refused_even_with_the_token(owner):
    async with owner.http.get("/prompt", headers={"Origin": "http://evil.example"}) as answer:
        assert answer.status == 403
        assert await answer.read() == b""

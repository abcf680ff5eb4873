"""A ComfyUI as it stands in companies: behind TLS, below a base path, and with a door."""

from __future__ import annotations

import plain
import pytest
import trustme
from aiohttp import web
from reverse_proxy import ReverseProxy, wants

import comfynb
from comfynb.workflows import Workflow

SESSION = "s3ssion-0f-a-login"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def ca(authority, tmp_path):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


def login(request: web.Request) -> web.Response | None:
    """Wants a token; whoever has it gets a cookie, without which nothing else is answered."""
    if request.headers.get("Authorization") != "Bearer t0ken-f0r-the-d00r":
        return web.Response(status=401)
    if request.cookies.get("session") != SESSION:
        moved = web.Response(status=302, headers={"Location": request.path_qs})
        moved.set_cookie("session", SESSION, path="/studio/one", secure=True, httponly=True)
        return moved
    return None


@pytest.mark.parametrize("graph", [plain.picture(side=1024), plain.by_socket()])
async def test_pictures_come_through_tls_a_base_path_a_token_and_a_login(
    server, authority, ca, tmp_path, graph
):
    """A picture of 3 MB by HTTP, and one that comes over the socket."""
    with (
        ReverseProxy(server.url, base="/studio/one", authority=authority, gate=login) as proxy,
        comfynb.connect(
            proxy.url, workflow=Workflow.load(graph), log=tmp_path / "log",
            token="t0ken-f0r-the-d00r", ca=ca,
        ) as studio,
    ):  # fmt: skip
        made = await studio.run(plain.scenes(2))
        assert [k.status for k in made] == ["done"] * 2, [str(k.error) for k in made]
        assert studio.server == f"localhost:{proxy.port}/studio/one"
    assert all(seen.path.startswith("/studio/one/") for seen in proxy.seen)
    (shake,) = [seen for seen in proxy.seen if seen.websocket]
    assert SESSION in shake.headers["cookie"]
    refused = [seen for seen in proxy.seen if SESSION not in seen.headers.get("cookie", "")]
    assert len(refused) == 1, "the cookie was kept"


async def test_a_wrong_token_is_told_before_anything_is_sent(server, authority, ca):
    gate = wants(header=("Authorization", "Bearer right-0ne"))
    with (
        ReverseProxy(server.url, authority=authority, gate=gate) as proxy,
        comfynb.connect(
            proxy.url, workflow=plain.flow(), log=False, token="wr0ng-0ne", ca=ca
        ) as studio,
    ):
        with pytest.raises(comfynb.errors.AccessDeniedError, match=r"401.*token="):
            await studio.run(plain.scenes(1))
        assert {seen.method for seen in proxy.seen} == {"GET"}

"""Every way in, enforced on HTTP and WebSocket; what is not trusted, and where nothing follows."""

from __future__ import annotations

import base64
import datetime as dt
import subprocess

import pytest
import trustme
from aiohttp import web
from fake_servers import STATS, FakeServer
from reverse_proxy import ReverseProxy, wants

from comfynb.backends.comfyui import Address, ComfyUIBackend
from comfynb.backends.comfyui.http import Http
from comfynb.errors import (
    AccessDeniedError,
    BackendError,
    CertificateError,
    NotComfyUIError,
    RedirectedError,
    ServerUnreachableError,
)

SECRET = "sekret-0f-the-d00r"
BASIC = base64.b64encode(f"ann:{SECRET}".encode()).decode()


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def ca(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="module")
def shared_proxy(shared_engine, authority):
    with ReverseProxy(shared_engine.url, base="/base", authority=authority) as proxy:
        yield proxy


@pytest.fixture
def proxy(shared_proxy, engine):
    shared_proxy.gate = lambda _: None
    shared_proxy.seen.clear()
    return shared_proxy


async def enter(url: str, **access):
    """Open a backend: one request and the socket; return what the server says of itself."""
    backend = ComfyUIBackend(Address.parse(url, **access), reconnect_for=0)
    try:
        return await backend.open()
    finally:
        await backend.aclose()


async def refused(url: str, **access) -> BackendError:
    with pytest.raises(BackendError) as raised:
        await enter(url, **access)
    told(raised.value)
    return raised.value


def told(error: BaseException) -> None:
    """No error quotes the secret, nor carries one that holds it."""
    assert SECRET not in str(error) + repr(error)
    assert error.__cause__ is None
    assert error.__context__ is None or isinstance(error.__context__, BackendError)


WAYS = {
    "bearer token": ({"token": SECRET}, {"header": ("Authorization", f"Bearer {SECRET}")}),
    "basic auth": ({"auth": ("ann", SECRET)}, {"header": ("Authorization", f"Basic {BASIC}")}),
    "header": ({"headers": {"X-Key": SECRET}}, {"header": ("X-Key", SECRET)}),
    "cookie": ({"cookies": {"session": SECRET}}, {"cookie": ("session", SECRET)}),
    "Cookie header": (
        {"headers": {"cookie": f"a=b; session={SECRET}"}},
        {"cookie": ("session", SECRET)},
    ),
}


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_opens_http_and_the_socket(proxy, ca, way):
    given, wanted = WAYS[way]
    proxy.gate = wants(**wanted)
    assert (await enter(proxy.url, ca=ca, **given)).version
    assert [seen.websocket for seen in proxy.seen] == [False, True]
    assert isinstance(await refused(proxy.url, ca=ca), AccessDeniedError)


async def test_user_password_and_query_of_the_address_open_both_too(proxy, ca):
    proxy.gate = wants(header=("Authorization", f"Basic {BASIC}"), query=("key", "k e/y"))
    url = proxy.url.replace("https://", f"https://ann:{SECRET}@") + "/?key=k%20e%2Fy"
    assert (await enter(url, ca=ca)).version
    assert [seen.websocket for seen in proxy.seen] == [False, True]
    assert proxy.seen[1].query["clientId"]


async def test_a_door_that_only_the_socket_has_is_named(proxy, ca):
    proxy.gate = lambda r: web.Response(status=403) if "Upgrade" in r.headers else None
    error = await refused(proxy.url, ca=ca, token=SECRET)
    assert isinstance(error, AccessDeniedError)
    assert "WebSocket" in str(error)


# -- certificates


async def test_an_unknown_certificate_is_refused_and_what_to_do_is_said(proxy):
    error = await refused(proxy.url, token=SECRET)
    assert isinstance(error, CertificateError)
    assert isinstance(error, ServerUnreachableError)
    assert "nobody this machine trusts" in str(error)
    assert "ca='that.pem'" in str(error)
    assert not proxy.seen


async def test_the_environment_may_name_the_authority(proxy, ca, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    assert (await enter(proxy.url)).version


async def test_a_folder_of_hashed_certificates_is_taken(proxy, authority, tmp_path):
    name = ssl_hash(authority.cert_pem.bytes())
    (tmp_path / name).write_bytes(authority.cert_pem.bytes())
    assert (await enter(proxy.url, ca=tmp_path)).version


def ssl_hash(pem: bytes) -> str:
    """Return the file name under which OpenSSL looks for an authority in a folder."""
    command = ["openssl", "x509", "-subject_hash", "-noout"]
    done = subprocess.run(command, input=pem, capture_output=True, check=True)
    return done.stdout.decode().strip() + ".0"


async def test_unverified_works_and_warns_loudly(proxy):
    with pytest.warns(UserWarning, match=r"not checked.*read and change everything") as caught:
        assert (await enter(proxy.url, verify=False, token=SECRET)).version
    assert caught[0].filename.endswith("tls.py"), "a caller's line, which is quoted, may hold it"


async def test_what_is_wrong_with_a_certificate_is_said(engine, authority, ca):
    then = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    for certificate, words in [
        ({"name": "elsewhere.example"}, "use the name its certificate is for"),
        ({"not_after": then}, "has expired"),
    ]:
        with ReverseProxy(engine.url, authority=Issuing(authority, **certificate)) as proxy:
            error = await refused(f"https://localhost:{proxy.port}", ca=ca)
        assert isinstance(error, CertificateError)
        assert words in str(error)


class Issuing:
    """An authority whose certificates are for another name or time."""

    def __init__(self, authority, name="localhost", **options):
        self._authority, self._name, self._options = authority, name, options

    def issue_cert(self, _):
        return self._authority.issue_cert(self._name, **self._options)


async def test_https_to_a_plain_port_says_to_try_http(engine):
    error = await refused(engine.url.replace("http:", "https:"))
    assert "http:// instead of https://" in str(error)


@pytest.mark.parametrize("text", [None, b"no certificate\n"])
def test_a_bad_ca_is_said_at_once(tmp_path, text):
    path = tmp_path / "mine.pem"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(BackendError, match=r"mine\.pem cannot be read.*PEM"):
        Address.parse("https://gpu", ca=path)


# -- redirects


def moving(status: int, there, *, only=lambda _: True):
    """A gate that redirects what comes from below /old."""

    def gate(request: web.Request) -> web.Response | None:
        if "/old/" in request.path and only(request):
            location = there(request)
            return web.Response(status=status, headers={"Location": location})
        return None

    return gate


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_get_and_the_socket_follow_within_the_origin_with_all_secrets(proxy, ca, status):
    proxy.gate = moving(status, lambda r: r.path.replace("/old", ""))
    url = proxy.url.replace("/base", "/base/old") + f"?key={SECRET}"
    assert (await enter(url, ca=ca, headers={"X-Key": SECRET})).version
    followed = [seen for seen in proxy.seen if "/old/" not in seen.path]
    assert [seen.websocket for seen in followed] == [False, True]
    assert all(seen.query["key"] == seen.headers["x-key"] == SECRET for seen in followed)


@pytest.mark.parametrize("status", [307, 308])
async def test_a_post_follows_as_a_post_with_its_body(proxy, engine, ca, status):
    proxy.gate = moving(status, lambda r: r.path.replace("/old", ""))
    client = Http(Address.parse(proxy.url.replace("/base", "/base/old"), ca=ca))
    await client.post("/queue", {"delete": ["nothing"]})
    await client.aclose()
    assert [seen.method for seen in proxy.seen] == ["POST", "POST"]
    assert proxy.seen[0].headers["content-length"] == proxy.seen[1].headers["content-length"]


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_post_never_becomes_a_get(proxy, ca, status):
    proxy.gate = moving(status, lambda r: r.path.replace("/old", ""))
    client = Http(Address.parse(proxy.url.replace("/base", "/base/old"), ca=ca, token=SECRET))
    with pytest.raises(RedirectedError) as raised:
        await client.post_prompt({"prompt": {}})
    await client.aclose()
    told(raised.value)
    assert f"connect('{proxy.url}')" in str(raised.value)
    assert len(proxy.seen) == 1


async def test_no_secret_follows_to_another_origin(proxy, ca):
    with FakeServer({"/system_stats": STATS}) as other:
        for only in (lambda r: "Upgrade" not in r.headers, lambda r: "Upgrade" in r.headers):
            gate = moving(302, lambda r: f"{other.url}/login?back={SECRET}", only=only)
            url = proxy.url + "/old"
            proxy.gate = lambda r, gate=gate: gate(r) or passes(r, STATS)
            error = await refused(url, ca=ca, token=SECRET, cookies={"s": SECRET})
            assert isinstance(error, RedirectedError)
            assert "another server" in str(error)
            assert "token=" in str(error)
        assert other.requests == []


def passes(request: web.Request, stats) -> web.Response | None:
    return web.json_response(stats) if request.path.endswith("/system_stats") else None


async def test_plain_http_that_points_to_https_says_which_address_to_give(engine):
    with ReverseProxy(engine.url) as plain:
        plain.gate = lambda r: web.Response(
            status=301, headers={"Location": f"https://localhost:1{r.path_qs}"}
        )
        error = await refused(plain.url + f"/?key={SECRET}")
    assert isinstance(error, RedirectedError)
    assert "connect('https://localhost:1')" in str(error)
    assert error.target == "https://localhost:1/system_stats"


async def test_redirects_in_circles_end(proxy, ca):
    proxy.gate = lambda r: web.Response(status=302, headers={"Location": r.path_qs})
    error = await refused(proxy.url, ca=ca)
    assert "302" in str(error)
    assert len(proxy.seen) < 10


async def test_a_login_page_is_recognised(proxy, ca):
    page = b"<!doctype html><form><input type='password' name='p'></form>"
    proxy.gate = lambda r: (
        web.Response(body=page, content_type="text/html")
        if r.path == "/login"
        else web.Response(status=302, headers={"Location": "/login"})
    )
    error = await refused(proxy.url, ca=ca)
    assert isinstance(error, NotComfyUIError)
    assert "login page" in str(error)
    assert "cookies=" in str(error)


# -- cookies


async def test_cookies_of_answers_are_kept_and_replace_the_given_one(proxy, ca):
    def gate(request: web.Request) -> web.Response:
        response = web.json_response({"got": request.cookies.get("session", "")})
        response.set_cookie("session", "n3w-" + SECRET, path="/base")
        return response

    proxy.gate = gate
    client = Http(Address.parse(proxy.url, ca=ca, cookies={"session": SECRET, "other": "kept"}))
    answers = [await client.get_json("/x") for _ in range(2)]
    await client.renew()
    answers.append(await client.get_json("/x"))
    await client.aclose()
    assert [answer["got"] for answer in answers] == [SECRET, *["n3w-" + SECRET] * 2]
    assert all("other=kept" in seen.headers["cookie"] for seen in proxy.seen)
    assert "s3ssion" not in repr(client.cookies)


async def test_cookies_without_end_are_forgotten(proxy, ca):
    def gate(request: web.Request) -> web.Response:
        response = web.json_response({})
        for number in range(80):
            response.set_cookie(f"c{len(proxy.seen)}-{number}", "x" * 10)
        return response

    proxy.gate = gate
    client = Http(Address.parse(proxy.url, ca=ca, cookies={"session": SECRET}))
    for _ in range(4):
        await client.get_json("/x")
    await client.aclose()
    assert all(f"session={SECRET}" in seen.headers["cookie"] for seen in proxy.seen)
    assert len(client.cookies.jar) <= 101


def test_the_ways_are_named_without_what_they_hold():
    address = Address.parse(
        f"http://gpu/?key={SECRET}&{SECRET}", token=SECRET,
        headers={"X-Key": SECRET}, cookies={"session": SECRET},
    )  # fmt: skip
    assert address.ways == (
        "bearer token", "header X-Key", "cookie session", "query parameter key", "query",
    )  # fmt: skip
    assert SECRET not in repr(address) + str(address)
    assert address.key != Address.parse("http://gpu/", token=SECRET).key


# -- proxies of the environment


@pytest.fixture
def through(monkeypatch):
    """Have the environment name a proxy."""

    def through(url: str) -> None:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.setenv("http_proxy", url.replace("://", f"://ann:{SECRET}@"))
        monkeypatch.setenv("all_proxy", url.replace("://", f"://ann:{SECRET}@"))

    return through


async def test_a_proxy_of_the_environment_leads_to_other_machines_only(through, engine):
    with FakeServer(default=STATS) as proxy:
        through(proxy.url)
        client = Http(Address.parse("http://gpu.example:8188/base"))
        assert await client.get_json("/system_stats") == STATS
        await client.aclose()
        assert (await enter(engine.url)).version
    ((method, path, headers),) = proxy.requests
    assert (method, path) == ("GET", "http://gpu.example:8188/base/system_stats")
    assert headers["proxy-authorization"] == f"Basic {BASIC}"


@pytest.mark.parametrize("url", ["http://gpu.example", "https://gpu.example"])
async def test_a_proxy_that_wants_a_password_is_named_as_such(through, url):
    with FakeServer(default=(407, SECRET.encode())) as proxy:
        through(proxy.url)
        error = await refused(url)
    assert "the proxy of this environment" in str(error)
    assert "NO_PROXY" in str(error)


async def test_the_socket_says_it_too(through):
    with FakeServer({"http://gpu.example/system_stats": STATS}, default=(407, b"")) as proxy:
        through(proxy.url)
        error = await refused("http://gpu.example")
    assert "the proxy of this environment" in str(error)


async def test_a_proxy_that_cannot_be_used_is_named_without_its_password(through):
    through("socks9://127.0.0.1:1")
    error = await refused("http://gpu.example")
    assert "proxy of this environment cannot be used" in str(error)

"""Addresses: what users give is read, and what is secret in it stays out of sight."""

from __future__ import annotations

import base64
import copy
import pickle

import pytest

from comfynb.backends.comfyui import Address
from comfynb.errors import BackendError


@pytest.mark.parametrize(
    ("given", "url", "label"),
    [
        ("gpu", "http://gpu:8188", "gpu:8188"),
        ("gpu:9000", "http://gpu:9000", "gpu:9000"),
        ("  gpu:9000/ ", "http://gpu:9000", "gpu:9000"),
        ("http://gpu", "http://gpu", "gpu"),
        ("http://gpu:80/", "http://gpu:80", "gpu:80"),
        ("https://host/base/", "https://host/base", "host/base"),
        ("ws://gpu:1", "http://gpu:1", "gpu:1"),
        ("wss://gpu:1/ws", "https://gpu:1/ws", "gpu:1/ws"),
        ("http://[::1]:8188", "http://[::1]:8188", "[::1]:8188"),
        ("http://GPU:8188/Path?x=1#part", "http://gpu:8188/Path", "gpu:8188/Path"),
    ],
)
def test_what_a_user_gives_is_read(given, url, label):
    address = Address.parse(given)
    assert (address.url, address.label) == (url, label)


def test_the_websocket_is_below_the_same_address():
    assert Address.parse("https://host/base/").websocket_url == "wss://host/base/ws"
    assert Address.parse("gpu").websocket_url == "ws://gpu:8188/ws"


def test_secrets_are_split_off_the_url():
    address = Address.parse("https://ann:pa%40ss@host/base?token=sekret&x=1")
    assert address.url == "https://host/base"
    assert address.params == {"token": "sekret", "x": "1"}
    kind, _, pair = address.headers["Authorization"].partition(" ")
    assert (kind, base64.b64decode(pair)) == ("Basic", b"ann:pa@ss")


def test_no_secret_is_in_the_repr():
    address = Address.parse(
        "https://ann:sekret1@host?token=sekret2", token="sekret3", headers={"X-Key": "sekret4"}
    )
    assert "sekret" not in repr(address) + str(address) + address.label + address.websocket_url


def test_a_token_wins_over_a_user_and_headers_over_both():
    address = Address.parse("http://ann:pw@host", token="t")
    assert address.headers == {"Authorization": "Bearer t"}
    address = Address.parse("http://host", token="t", headers={"authorization": "Custom x"})
    assert dict(address.headers) == {"authorization": "Custom x"}, "header names have no case"


def test_white_space_around_a_token_read_from_a_file_is_dropped():
    assert Address.parse("gpu", token="sekret\n").headers["Authorization"] == "Bearer sekret"


@pytest.mark.parametrize("bad", ["sek\nret", "sekr\u00e9t", "sek\0ret", "sek\u2026ret"])
def test_what_no_header_can_carry_is_refused_without_quoting_it(bad):
    for given in ({"token": bad}, {"headers": {"X-Key": bad}}):
        with pytest.raises(BackendError) as raised:
            Address.parse("gpu", **given)
        text = repr(raised.value) + str(raised.value)
        assert "sek" not in text
        assert ("Authorization" if "token" in given else "X-Key") in text
        assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    "bad",
    ["", "http://", "ftp://gpu", "file:///etc/passwd", "http://gpu:port", "http://gpu:99999",
     "http://[::1", "http://ann:sekret/1@gpu", "http://gpu:sekret"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_an_example(bad):
    with pytest.raises(BackendError) as raised:
        Address.parse(bad)
    assert "http://127.0.0.1:8188" in str(raised.value)
    assert "sekret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_url_with_control_characters_cannot_smuggle_anything():
    for bad in ("http://gpu\r\nX: y:8188", "http://gp u:8188/", "http://gpu/a\nb"):
        try:
            address = Address.parse(bad)
        except BackendError:
            continue
        assert not set("\r\n ") & set(address.url)


@pytest.mark.parametrize(
    ("given", "loopback"),
    [("127.0.0.1:1", True), ("127.9.9.9", True), ("localhost", True), ("http://[::1]:1", True),
     ("gpu", False), ("10.0.0.1", False), ("127.example.com", False)],
)  # fmt: skip
def test_loopback_is_known(given, loopback):
    assert Address.parse(given).loopback is loopback


def test_equal_addresses_are_equal_and_can_be_copied():
    one, two = (Address.parse("gpu", token="t") for _ in range(2))
    assert one == two != Address.parse("gpu", token="u")
    assert pickle.loads(pickle.dumps(one)) == one == copy.deepcopy(one)

"""Neuronpedia's API, by a stand-in on this machine: asked politely, its key kept, and done without."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cleansteer.core.errors import InputError
from cleansteer.core.progress import Reporter
from cleansteer.core.settings import SaeSetting
from cleansteer.naming import neuronpedia
from cleansteer.naming.neuronpedia import KEY, OTHER_SITE, Neuronpedia, address_of
from cleansteer.naming.source import NEURONPEDIA, Described, check_source, read_descriptions

LISTING = "gpt2-small/8-res-jb"
GPT2 = SaeSetting(release="gpt2-small-res-jb", id="blocks.8.hook_resid_pre")
SECRET = "sk-np-a-secret"


class Site:
    """What the stand-in answers, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.keys: list[str | None] = []
        self.pause = 0.0
        self.answer: Callable[[int, int], tuple[int, dict[str, str], bytes]] = described

    def address(self, port: int) -> str:
        return f"http://127.0.0.1:{port}"


def described(index: int, number: int) -> tuple[int, dict[str, str], bytes]:
    body = {
        "modelId": "gpt2-small",
        "index": str(index),
        "explanations": [{"description": ""}, {"description": f" about {index}\n"}],
        "activations": [{"tokens": ["a"] * 50}],
    }
    return 200, {}, json.dumps(body).encode()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    found = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            found.keys.append(self.headers.get("x-api-key"))
            index = int(self.path.rpartition("/")[2])
            status, headers, body = found.answer(index, len(found.asked))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not found.pause:
                self.wfile.write(body)
            for at in range(len(body) if found.pause else 0):
                with suppress(OSError):
                    self.wfile.write(body[at : at + 1])
                    self.wfile.flush()
                    time.sleep(found.pause)

        def log_message(self, *given: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv(OTHER_SITE, found.address(server.server_port))
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setattr(neuronpedia, "cache_root", lambda: tmp_path / "cache")
    yield found
    server.shutdown()
    server.server_close()


def read(wanted: list[int]) -> dict[int, str]:
    return read_descriptions(
        NEURONPEDIA, Described(GPT2, 24_576, "f"), wanted, Reporter(quiet=True)
    )


def test_only_what_matters_is_asked_for_and_once(site: Site) -> None:
    assert read([3, 12]) == {3: "about 3", 12: "about 12"}
    assert site.asked == [f"/api/feature/{LISTING}/3", f"/api/feature/{LISTING}/12"]
    assert read([12, 40]) == {12: "about 12", 40: "about 40"}
    assert site.asked[2:] == [f"/api/feature/{LISTING}/40"]


def test_a_feature_without_an_explanation_or_unknown_has_none(site: Site) -> None:
    site.answer = lambda index, number: (
        (404, {}, b"") if index == 5 else (200, {}, b'{"explanations": []}')
    )
    assert read([5, 6]) == {}


def test_the_key_is_sent_and_stands_nowhere_else(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    read([1])
    assert site.keys == [None]  # it works without
    monkeypatch.setenv(KEY, SECRET)
    assert SECRET not in repr(Neuronpedia(LISTING))
    read([2])
    assert site.keys[1] == SECRET
    site.answer = lambda index, number: (403, {}, SECRET.encode())
    with pytest.warns(UserWarning, match="refuses access") as told:
        read([7])
    said = "".join(str(warning.message) for warning in told) + "".join(capfd.readouterr())
    kept = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET not in said + kept


def test_the_key_follows_no_redirect(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)
    elsewhere = f"/api/feature/{LISTING}/99"
    site.answer = lambda index, number: (302, {"Location": elsewhere}, b"")
    with pytest.warns(UserWarning, match="answered with status 302"):
        assert read([1]) == {}
    assert len(site.asked) == 1


REFUSALS: dict[str, tuple[tuple[int, dict[str, str], bytes], str, int]] = {
    "no access": ((401, {}, b""), "it refuses access", 1),
    "no such thing": ((410, {}, b""), "status 410", 1),
    "out of order": ((500, {}, b""), "status 500, 3 times", 3),
    "too often": ((429, {}, b""), "status 429, 3 times", 3),
    "too often, for an hour": ((429, {"Retry-After": "3600"}, b""), "wait for 3600 s", 1),
    "no JSON": ((200, {}, b"<html>"), "not JSON", 1),
    "nested beyond measure": ((200, {}, b"[" * 200_000), "not JSON", 1),
    "without end": ((200, {}, b" " * ((8 << 20) + 1)), "longer than 8 MB", 1),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_site_that_refuses_is_told_in_a_line_and_done_without(
    case: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal, words, n_asked = REFUSALS[case]
    client = Neuronpedia(LISTING, sleep=lambda seconds: None)
    read([1])
    site.answer = lambda index, number: refusal
    found, reason = client.describe([1, 2, 3])
    assert found == {1: "about 1"}  # what is kept, and no more after a refusal
    assert reason is not None
    assert words in reason
    assert len(site.asked) == 1 + n_asked


def test_it_waits_as_long_as_it_is_asked_to(site: Site) -> None:
    waits: list[float] = []
    site.answer = lambda index, number: (
        (429, {"Retry-After": "7"}, b"") if number == 1 else described(index, number)
    )
    found, reason = Neuronpedia(LISTING, sleep=waits.append).describe([4])
    assert (found, reason, waits) == ({4: "about 4"}, None, [7.0])


def test_a_site_that_hangs_or_is_not_there(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(index: int, number: int) -> tuple[int, dict[str, str], bytes]:
        release.wait(20)
        return described(index, number)

    site.answer = hang
    monkeypatch.setattr(neuronpedia, "_TIMEOUT", 0.3)
    with pytest.warns(
        UserWarning, match=r"described 0 of 2 features: it did not answer within 0\.3 s"
    ):
        assert read([1, 2]) == {}
    release.set()
    monkeypatch.setenv(OTHER_SITE, "http://127.0.0.1:9")
    with pytest.warns(UserWarning, match="it cannot be reached"):
        assert read([1]) == {}


def test_a_site_that_answers_in_drips_is_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neuronpedia, "_TIMEOUT", 0.5)
    site.pause = 0.02  # a byte each
    with pytest.warns(UserWarning, match=r"it did not end its answer within 0\.5 s"):
        assert read([1]) == {}


@pytest.mark.parametrize("kept", ["no JSON", '{"x": "y"}', "[1]"])
def test_a_broken_cache_is_written_anew(kept: str, site: Site) -> None:
    file = Neuronpedia(LISTING).file
    file.parent.mkdir(parents=True)
    file.write_text(kept)
    assert read([3]) == {3: "about 3"}
    assert json.loads(file.read_text()) == {"3": "about 3"}


def test_saes_that_neuronpedia_does_not_list(site: Site) -> None:
    own = SaeSetting(path="somewhere")
    assert address_of(own) is None
    for refused in (
        lambda: check_source(NEURONPEDIA, own),
        lambda: read_descriptions(NEURONPEDIA, Described(own, 10, "f"), [1], Reporter(quiet=True)),
    ):
        with pytest.raises(InputError, match="names no place on Neuronpedia"):
            refused()
    assert site.asked == []


@pytest.mark.parametrize("address", ["ftp://x", "neuronpedia", "http://", "https://a b"])
def test_another_site_has_to_be_an_address(
    address: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OTHER_SITE, address)
    with pytest.raises(InputError, match="expected an address"):
        Neuronpedia(LISTING)

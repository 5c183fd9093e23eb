"""Downloads from a server that misbehaves in every way."""

import time
from email.utils import formatdate

import pytest

from recbole_m3rec.datasets.io import urls
from recbole_m3rec.datasets.io.download import DownloadError, Limits, download
from recbole_m3rec.datasets.io.urls import RefusedAddressError, is_public, parse_address
from recbole_m3rec.support.safe_write import FileInUseError, open_alone
from tests.datasets.http_server import serve

CONTENT = bytes(range(256)) * 40
QUICK = Limits(stall=0.5, tries=4)


class Server:
    """Answers each request by the next of ``answers``; the last one stays."""

    def __init__(self):
        self.answers, self.requests = [whole], []

    def answer(self, handler):
        answer = self.answers[min(len(self.requests), len(self.answers) - 1)]
        self.requests.append(dict(handler.headers.items()) | {"path": handler.path})
        answer(handler)


def reply(status, body=b"", **headers):
    def answer(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def length(content=CONTENT):
    return str(len(content))


def whole(handler):
    reply(200, CONTENT, Content_Length=length(), ETag='"1"')(handler)


def cut(handler):
    reply(200, CONTENT[:3000], Content_Length=length(), ETag='"1"')(handler)


def rest(handler):
    start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    reply(206, CONTENT[start:], Content_Range=span, ETag='"1"')(handler)


def stalls(handler):
    cut(handler)
    handler.wfile.flush()
    time.sleep(1.2)


def drips(handler):
    reply(200, Content_Length=length())(handler)
    for _ in range(15):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.1)


def chunked(body):
    def answer(handler):
        handler.protocol_version = "HTTP/1.1"
        reply(200, body, Transfer_Encoding="chunked")(handler)
        handler.close_connection = True

    return answer


@pytest.fixture
def server():
    made = Server()
    with serve(made.answer) as address:
        made.port = int(address.rpartition(":")[2])
        made.url = f"{address}/some/file.gz?v=1"
        yield made


class Fetch:
    """``download`` into a folder, without waiting; ``waits`` are the seconds it would have."""

    def __init__(self, server, folder):
        self.server, self.path = server, folder / "deep/file.gz"
        self.waits = []

    def __call__(self, *answers, **options):
        if answers:
            self.server.answers = list(answers)
        options = {"allow_private": True, "limits": QUICK, "sleep": self.waits.append} | options
        download(options.pop("url", self.server.url), self.path, **options)

    def names(self):
        return sorted(path.name for path in self.path.parent.iterdir())


@pytest.fixture
def fetch(server, tmp_path):
    return Fetch(server, tmp_path)


def test_a_file_is_fetched_whole(fetch):
    fetch()
    assert fetch.path.read_bytes() == CONTENT
    assert fetch.names() == ["file.gz"]
    assert fetch.waits == []
    assert fetch.server.requests[0]["path"] == "/some/file.gz?v=1"


@pytest.mark.parametrize(
    "bad",
    [
        reply(500),
        reply(503),
        reply(429),
        cut,
        stalls,
        lambda handler: handler.connection.close(),
        lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"),
        chunked(b"5\r\nabcde\r\n"),
    ],
)
def test_after_a_passing_failure_it_is_tried_again(bad, fetch):
    fetch(bad, whole)
    assert fetch.path.read_bytes() == CONTENT
    assert fetch.names() == ["file.gz"]
    assert len(fetch.waits) == 1


def test_waits_double_until_it_gives_up(fetch):
    with pytest.raises(DownloadError, match="HTTP 503, 4 times in a row") as error:
        fetch(reply(503))
    assert error.value.reason == "HTTP 503"
    assert len(fetch.waits) == 3
    for wait, expected in zip(fetch.waits, (1, 2, 4), strict=True):
        assert 0.75 * expected <= wait <= 1.25 * expected
    assert fetch.names() == []


@pytest.mark.parametrize("in_words", [False, True])
def test_a_server_that_asks_to_wait_is_heeded(in_words, fetch):
    asked = formatdate(time.time() + 40, usegmt=True) if in_words else "40"
    fetch(reply(429, Retry_After=asked), whole)
    assert 37 < fetch.waits[0] <= 41


def test_a_server_that_asks_to_wait_for_hours_is_not(fetch):
    with pytest.raises(DownloadError, match="HTTP 429") as error:
        fetch(reply(429, Retry_After="7200"))
    assert error.value.reason == "the host asks for a long wait (HTTP 429)"
    assert fetch.waits == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_lasting_failure_is_not_tried_again(status, fetch):
    with pytest.raises(DownloadError, match=f"file.gz.v=1: HTTP {status}") as error:
        fetch(reply(status, b"sorry"))
    assert error.value.reason == f"HTTP {status}"
    assert len(fetch.server.requests) == 1
    assert fetch.names() == []


def test_a_cut_file_is_gone_on_with(fetch):
    fetch(cut, rest)
    assert fetch.path.read_bytes() == CONTENT
    assert fetch.server.requests[1]["Range"] == "bytes=3000-"
    assert fetch.server.requests[1]["If-Range"] == '"1"'


def test_another_run_goes_on_where_one_gave_up(fetch):
    with pytest.raises(DownloadError, match="3,000 bytes that are there"):
        fetch(cut, reply(500))
    assert fetch.names() == ["file.gz.part", "file.gz.part.json"]
    fetch.server.requests.clear()
    fetch(rest)
    assert fetch.path.read_bytes() == CONTENT
    assert fetch.server.requests[0]["Range"] == "bytes=3000-"
    assert fetch.names() == ["file.gz"]


@pytest.mark.parametrize(
    "second",
    [
        whole,  # the server does not know ranges
        reply(206, CONTENT[5:], Content_Range=f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}"),
        reply(206, b"x", Content_Range="bytes 3000-3000/3001", ETag='"2"'),
        reply(206, b"x", Content_Range="bytes 3000-3000/3001"),  # of which version?
        reply(416, Content_Range="bytes */2000"),
    ],
)
def test_a_file_that_is_another_now_is_fetched_anew(second, fetch):
    fetch(cut, second, whole)
    assert fetch.path.read_bytes() == CONTENT


def test_a_part_need_not_repeat_when_the_file_was_changed(fetch):
    then = {"Last_Modified": "Sat, 28 Nov 2026 10:00:00 GMT"}
    span = f"bytes 3000-{len(CONTENT) - 1}/{len(CONTENT)}"
    fetch(
        reply(200, CONTENT[:3000], Content_Length=length(), **then),
        reply(206, CONTENT[3000:], Content_Range=span),
    )
    assert fetch.path.read_bytes() == CONTENT
    assert fetch.server.requests[1]["If-Range"] == then["Last_Modified"]


def test_without_an_identity_to_ask_for_nothing_is_gone_on_with(fetch):
    fetch(reply(200, CONTENT[:3000], Content_Length=length()), whole)
    assert "Range" not in fetch.server.requests[1]
    assert fetch.path.read_bytes() == CONTENT


def test_the_part_of_another_address_is_not_gone_on_with(fetch):
    with pytest.raises(DownloadError):
        fetch(cut, reply(500))
    fetch.server.requests.clear()
    fetch(whole, url=fetch.server.url.replace("v=1", "v=2"))
    assert "Range" not in fetch.server.requests[0]
    assert fetch.path.read_bytes() == CONTENT


def test_a_complete_part_is_known_to_be(fetch):
    with pytest.raises(DownloadError):
        fetch(cut, reply(500))
    (fetch.path.parent / "file.gz.part").write_bytes(CONTENT)
    fetch(lambda handler: reply(416, Content_Range=f"bytes */{len(CONTENT)}")(handler))
    assert fetch.path.read_bytes() == CONTENT


def test_a_server_that_drips_runs_out_of_time(fetch):
    limits = Limits(stall=5, try_time=0.3, tries=1)
    with pytest.raises(DownloadError, match="takes too long"):
        fetch(drips, limits=limits)


@pytest.mark.parametrize(
    "answer", [whole, reply(200, CONTENT, ETag='"1"'), chunked(b"400\r\n" + b"x" * 1024)]
)
def test_a_file_that_is_too_large_is_refused(answer, fetch):
    with pytest.raises(DownloadError, match="more than 1,000 bytes") as error:
        fetch(answer, limits=Limits(max_bytes=1000))
    assert error.value.reason == "too large (more than 1,000 bytes)"
    assert fetch.names() == []


def test_what_a_check_does_not_like_leaves_the_old_file(fetch):
    fetch()
    with pytest.raises(DownloadError, match="no picture"):
        fetch(check=lambda path: "no picture" if path.read_bytes() == CONTENT else None)
    assert fetch.names() == ["file.gz"]


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://host/x", "http:///x", "http://user:word@host/x", "//host/x",
     "http://host:99999/x", "http://[::1/x", "gopher://host", "x", ""],
)  # fmt: skip
def test_only_plain_web_addresses_are_fetched(url, tmp_path):
    with pytest.raises(RefusedAddressError):
        download(url, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "192.168.0.1", "172.16.9.9", "169.254.169.254",
     "0.0.0.0", "[::ffff:127.0.0.1]", "[fe80::1]", "[fc00::1]", "2130706433", "0x7f.1"],
)  # fmt: skip
def test_private_addresses_are_refused_before_anything_is_sent(host, server, tmp_path):
    port = server.port
    with pytest.raises(RefusedAddressError, match="--allow-private"):
        download(f"http://{host}:{port}/x", tmp_path / "x")
    assert server.requests == []


def test_a_name_that_stands_for_a_private_address_is_refused(server, tmp_path, monkeypatch):
    port = server.port
    answers = [(2, 1, 6, "", ("8.8.8.8", port)), (2, 1, 6, "", ("127.0.0.1", port))]
    monkeypatch.setattr(urls.socket, "getaddrinfo", lambda *a, **k: answers)
    with pytest.raises(RefusedAddressError, match=r"innocent\.example: .*127\.0\.0\.1"):
        download(f"http://innocent.example:{port}/x", tmp_path / "x")
    assert server.requests == []


def test_the_address_that_was_checked_is_the_one_asked(fetch, monkeypatch):
    port = fetch.server.port
    looked_up = []

    def look_up(host, *a, **k):
        looked_up.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(urls.socket, "getaddrinfo", look_up)
    fetch(url="http://name.example/x")
    assert looked_up == ["name.example"]
    assert fetch.server.requests[0]["Host"] == "name.example"


def test_redirects_are_followed_and_checked_each(fetch, monkeypatch):
    fetch(reply(302, Location="/other?x=a b"), whole)
    assert fetch.server.requests[1]["path"] == "/other?x=a%20b"
    fetch.server.requests.clear()
    monkeypatch.setattr("recbole_m3rec.datasets.io.urls.is_public", lambda ip: ip != "10.0.0.1")
    with pytest.raises(RefusedAddressError, match=r"10\.0\.0\.1"):
        fetch(reply(301, Location="http://10.0.0.1/x"), allow_private=False)
    with pytest.raises(RefusedAddressError, match="only http and https"):
        fetch(reply(301, Location="file:///etc/passwd"))
    with pytest.raises(RefusedAddressError, match="redirects to .*'http://.image./x'"):
        fetch(reply(302, Location="http://[image]/x"))


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_redirect_in_raw_letters_is_followed(fetch, encoding):
    location = "/é".encode(encoding).decode("latin-1")  # as the server writes headers
    fetch(reply(302, Location=location), whole)
    assert fetch.server.requests[1]["path"] == "/%C3%A9"


def test_a_length_beyond_sense_is_none(fetch):
    with pytest.raises(DownloadError):
        fetch(reply(206, **{"Content-Range": f"bytes 0-1/{'9' * 5000}"}), limits=Limits(tries=1))


def test_redirects_without_end_end(fetch):
    with pytest.raises(DownloadError, match=r"file.gz.v=1: more than 5 redirects"):
        fetch(reply(302, Location="/again"))
    assert len(fetch.server.requests) == 6


def test_an_unknown_host_is_not_tried_again(tmp_path, monkeypatch, server):
    import socket

    def look_up(*a, **k):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(urls.socket, "getaddrinfo", look_up)
    with pytest.raises(DownloadError, match="no such host"):
        download("http://nowhere.example/x", tmp_path / "x")


def test_two_runs_do_not_write_one_part(fetch):
    fetch.path.parent.mkdir()
    with open_alone(fetch.path.with_name("file.gz.part")), pytest.raises(FileInUseError):
        fetch()


def test_a_proxy_of_the_environment_is_told_the_whole_address(fetch, monkeypatch):
    monkeypatch.setenv("http_proxy", fetch.server.url.partition("/some")[0])
    fetch(url="http://93.184.216.34/x", allow_private=False)
    assert fetch.server.requests[0]["path"] == "http://93.184.216.34/x"
    with pytest.raises(RefusedAddressError):
        fetch(url="http://10.0.0.1/x", allow_private=False)


@pytest.mark.parametrize(
    ("address", "public"),
    [("8.8.8.8", True), ("2606:4700::1111", True), ("100.64.0.1", False), ("224.0.0.1", False),
     ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("::ffff:10.0.0.1", False)],
)  # fmt: skip
def test_addresses_that_wrap_private_ones_are_private(address, public):
    assert is_public(address) is public


def test_odd_letters_of_an_address_are_escaped():
    assert str(parse_address("HTTP://Host/a b/é%20\r\nX: y")) == "http://host/a%20b/%C3%A9%20X:%20y"

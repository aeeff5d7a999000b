"""Who may do what, and what a server never does, whatever it is sent."""

from __future__ import annotations

import gzip
import json
import re
import socket
from html import unescape
from urllib.parse import quote, urljoin, urlsplit

import pytest

from lrbench_caffe.database import exchange
from lrbench_caffe.database.platform import Platform
from lrbench_caffe.database.uploads import MOST_LINES
from lrbench_caffe.records import Contribution
from lrbench_caffe.web import security
from lrbench_caffe.web.settings import MIB
from tests.database.records import run
from tests.web.serving import Client

PAGES = ("/", "/runs", "/live", "/playground", "/uploads", "/about", "/sign-in", "/api/v1/tasks")


def line(record) -> bytes:
    return exchange.to_line(record).encode()


# -- tokens ----------------------------------------------------------------------------------------


def test_reading_is_open_and_uploading_needs_a_token(client):
    for path in PAGES:
        assert client.get(path).status == 200, path
    answer = client.post("/api/v1/runs", line(run("a")))
    assert (answer.status, answer.json["error"]) == (
        401,
        "this needs a token with the scope 'write'",
    )
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("scope", "uploads", "administers"),
    [("read", 403, 403), ("write", 200, 403), ("admin", 200, 200)],
)
def test_a_token_may_do_what_its_scope_says(serve, token, scope, uploads, administers):
    someone = Client(serve(), token("ada", scope))
    assert someone.get("/api/v1/tasks").status == 200
    assert someone.post("/api/v1/runs", line(run("a"))).status == uploads
    wanted = json.dumps({"standing": "hidden"}).encode()
    admin = Client(someone.url, token("root", "admin"))
    assert admin.post("/api/v1/runs", line(run("b", seed=2))).status == 200
    kind = {"Content_Type": "application/json"}
    answer = someone.ask("/api/v1/runs/b/standing", wanted, "PUT", **kind)
    assert answer.status == administers
    assert someone.ask("/api/v1/runs/b", method="DELETE").status == administers


def test_wrong_expired_and_revoked_tokens(serve, token, database):
    address = serve()
    for secret in ("", "x", "lrb_" + "x" * 43, "lrb_\u00e4"):
        answer = Client(address).get("/api/v1/tasks", Authorization=f"Bearer {secret}")
        assert answer.status == 401
        assert answer.json["error"] == "the token is unknown, expired or revoked"
    expired = Client(address, token("ada", "write", -1))
    assert expired.post("/api/v1/runs", line(run("a"))).status == 401
    bob = Client(address, token("bob", "write"))
    assert bob.post("/api/v1/runs", line(run("a"))).status == 200
    Platform(database).revoke("bob")
    assert bob.post("/api/v1/runs", line(run("b"))).status == 401
    assert bob.get("/api/v1/tasks").status == 401


def test_a_private_server_shows_nothing_without_a_token(serve, token):
    address = serve(private=True)
    stranger = Client(address)
    for path in set(PAGES) - {"/sign-in"}:
        answer = stranger.get(path)
        assert answer.status == 401, path
        assert "mnist" not in answer.text
    assert stranger.get("/sign-in").status == 200
    assert stranger.get("/health").status == 200
    assert Client(address, token("ada", "read")).get("/").status == 200
    stranger.sign_in(token("bob", "read"))
    assert stranger.get("/").status == 200


def test_a_read_only_server_takes_nothing_from_anybody(serve, token, database):
    admin = Client(serve(read_only=True), token("root", "admin"))
    before = database.counts()
    assert admin.post("/api/v1/runs", line(run("a"))).status == 403
    assert admin.ask("/api/v1/runs/a", method="DELETE").status == 403
    assert admin.ask("/api/v1/batches/b", method="DELETE").status == 403
    assert database.counts() == before
    assert admin.get("/").status == 200


def test_an_upload_of_others_cannot_be_taken_back_or_continued(serve, token, database):
    address = serve()
    ada, bob = (Client(address, token(name, "write")) for name in ("ada", "bob"))
    batch = ada.post("/api/v1/runs", line(run("a"))).json["batch"]
    assert bob.ask(f"/api/v1/batches/{batch}", method="DELETE").status == 403
    assert bob.post(f"/api/v1/runs?batch={batch}", line(run("b", seed=2))).status == 403
    bob.sign_in(token("bob2", "write"))
    assert bob.get("/uploads").status == 200
    assert [r.contribution.batch for r in database.runs(uid="a")] == [batch]
    assert list(database.runs(uid="b")) == []
    assert ada.ask(f"/api/v1/batches/{batch}", method="DELETE").json == {"deleted": 1}


ODD = ("../../x", "..", ".", "a/../b", "a b?c#d%2e", "x" * 200)  # that came with another database


@pytest.mark.parametrize("batch", [*ODD, "...", "\u0661"])
def test_a_new_upload_has_an_id_that_can_stand_in_a_path(serve, token, database, batch):
    ada = Client(serve(), token("ada", "write"))
    answer = ada.post(f"/api/v1/runs?batch={quote(batch, safe='')}", line(run("a")))
    assert (answer.status, answer.json["error"].startswith("batch: ")) == (400, True)
    assert Platform(database).batches() == []
    for allowed in ("a", "..a", "0.b_C-9", "x" * 100):
        assert ada.post(f"/api/v1/runs?batch={allowed}", line(run(allowed))).status == 200


def test_an_upload_with_any_id_is_shown_and_taken_back(serve, token, database):
    for number, batch in enumerate(ODD):
        sent = Contribution(batch, "ada", None, None, 5.0)
        database.put(run(f"r{number}", seed=number, contribution=sent))
    ada = Client(serve())
    ada.sign_in(token("ada", "write"))
    for left in range(len(ODD), 0, -1):
        forms = re.findall(r'action="([^"]*take-back[^"]*)"', ada.get("/uploads").text)
        assert len(forms) == left
        place = urlsplit(unescape(forms[0]))
        answer = ada.submit(f"{place.path}?{place.query}")
        assert answer.status == 303, answer.text
    assert Platform(database).batches() == [] and list(database.uids("r")) == []


def test_an_upload_with_slashes_is_taken_back_through_the_api(serve, token, database):
    database.put(run("a", contribution=Contribution("a/b", "ada", None, None, 5.0)))
    ada = Client(serve(), token("ada", "write"))
    assert ada.ask("/api/v1/batches/a/b", method="DELETE").json == {"deleted": 1}


@pytest.mark.parametrize("uid", ODD)
def test_a_run_with_any_uid_has_a_page_where_a_browser_finds_it(serve, token, database, uid):
    database.put(run(uid))
    admin = Client(serve())
    admin.sign_in(token("root", "admin"))
    listed = admin.get("/runs?source=measured").text
    (link,) = re.findall(r'<td><a href="([^"]+/runs?[/?][^"]+)"', listed)
    link = unescape(link)
    page = admin.get(asked(link))
    assert page.status == 200 and "SIN2" in page.text
    (as_json,) = (a for a in links(page.text) if "/api/v1/run" in a)
    assert admin.get(asked(as_json)).json["uid"] == uid
    (form,) = re.findall(r'action="([^"]*standing[^"]*)"', page.text)
    answer = admin.submit(asked(unescape(form)), standing="hidden")
    assert (answer.status, asked(answer.headers["Location"])) == (303, asked(link))
    assert database_standing(database, uid) == "hidden"


def links(page: str) -> list[str]:
    return [unescape(a) for a in re.findall(r'href="([^"]+)"', page)]


def asked(address: str) -> str:
    """What a browser asks for: it resolves dots in the path."""
    parts = urlsplit(urljoin("http://x/", address))
    assert not {".", "..", "%2e", "%2e%2e"} & set(parts.path.split("/"))
    return f"{parts.path}?{parts.query}"


def database_standing(database, uid: str) -> str:
    return Platform(database).outcomes([uid])[uid].standing


# -- forms -----------------------------------------------------------------------------------------


def test_a_form_must_come_from_a_page_of_ours(serve, token, database):
    client = Client(serve())
    client.sign_in(token("ada", "admin"))
    database.put(run("a"))
    hide = {"standing": "hidden", "doubt": ""}
    for fields in ({**hide, "form_key": ""}, {**hide, "form_key": "x" * 32}):
        answer = client.submit("/standing?uid=a", **fields)
        assert (answer.status, "open the page again" in answer.text) == (403, True)
    key = next(c.value for c in client.cookies if c.name == "lrbench_form")
    body = f"standing=hidden&form_key={key}".encode()
    kind = {"Content_Type": "application/x-www-form-urlencoded"}
    answer = client.post("/standing?uid=a", body, Origin="https://evil.example", **kind)
    assert (answer.status, "another site" in answer.text) == (403, True)
    assert client.submit("/standing?uid=a", **hide).status == 303
    assert len(database.page(task_id=None, limit=500)) == len(list(database.runs())) - 1


@pytest.mark.parametrize("origin", ["http://[", "null", "", "\xe4", "http://127.0.0.1"])
def test_an_origin_that_is_none_is_another_site(client, origin):
    assert client.get("/sign-in").status == 200
    key = next(c.value for c in client.cookies if c.name == "lrbench_form")
    kind = {"Content_Type": "application/x-www-form-urlencoded"}
    answer = client.post("/sign-out", f"form_key={key}".encode(), Origin=origin, **kind)
    assert (answer.status, "another site" in answer.text) == (403, True)


def test_a_form_key_of_any_text(client):
    """A browser has ours; others may send what they like, with the charset that they like."""
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    part = b'--b\r\nContent-Disposition: form-data; name="form_key"\r\n\r\n+2AA-\r\n--b--\r\n'
    parts = {"Content_Type": "multipart/form-data; boundary=b; charset=utf-7"}
    for cookie, body, kind, status in (
        ("k", b"form_key=%C3%A4", form, 403),
        ("\xe4", b"form_key=k", form, 403),
        ("\xe4", b"form_key=%C3%A4", form, 303),
        ("k", part, parts, 403),
    ):
        answer = client.post("/sign-out", body, Cookie=f"lrbench_form={cookie}", **kind)
        assert answer.status == status, (cookie, body)


def test_cookies_are_out_of_reach_of_scripts_and_other_sites(serve, token):
    client = Client(serve(secure=True, root_path=""))
    (cookie,) = client.get("/sign-in").headers.get_all("Set-Cookie")
    assert {"HttpOnly", "SameSite=strict", "Secure", "Path=/"} <= set(cookie.split("; "))
    assert client.get("/").headers["Strict-Transport-Security"] == "max-age=31536000"


def test_signing_out_and_a_token_that_ends(serve, token, database):
    client = Client(serve())
    client.sign_in(token("ada", "write"))
    assert "ada (write)" in client.get("/").text
    Platform(database).revoke("ada")
    assert "ada (write)" not in client.get("/").text  # a digest in the page may hold "ada"
    client.sign_in(token("bob", "write"))
    assert "bob (write)" in client.get("/").text
    assert client.submit("/sign-out").status == 303
    assert "bob (write)" not in client.get("/").text
    answer = client.submit("/sign-in", secret="wrong")
    assert (answer.status, "unknown, expired or revoked" in answer.text) == (401, True)


# -- what is shown ---------------------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{1234567*8}}"


def test_what_others_wrote_is_text(serve, database):
    sent = Contribution("b", HOSTILE[:90], HOSTILE, "https://example.org/?q=%22%3E", 5.0)
    record = run(
        HOSTILE,
        contribution=sent,
        origin=HOSTILE,
        machine=HOSTILE,
        status="failed",
        reason=HOSTILE,
        head=HOSTILE,
        layers=HOSTILE,
    )
    database.put(record)
    client = Client(serve())
    for path in (
        "/",
        "/runs",
        f"/runs/{quote(HOSTILE, safe='')}",
        "/uploads",
        "/compare?uid=" + quote(HOSTILE),
    ):
        answer = client.get(path)
        assert answer.status == 200, path
        markup = re.sub(r'<script type="application/json">.*?</script>', "", answer.text)
        assert "<img" not in markup and "alert(1)</script>" not in answer.text, path
        assert re.findall(r"<script(?! src=)(?! type=\"application/json\")", answer.text) == []
        assert "9876536" not in answer.text, path  # what a template would make of it


def test_every_answer_says_what_our_pages_never_do(client):
    for path in (*PAGES, "/nope", "/static/pages.js", "/plotly.js", "/health"):
        headers = client.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "script-src 'self';" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe-eval" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "Server" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/static/../settings.py",
        "/static/..%2f..%2fsettings.py",
        "/static/%2e%2e/app.py",
        "/runs/..%2F..%2Fetc%2Fpasswd",
        "/live/..%2F..%2Fetc%2Fpasswd",
        "/live/..%2f..%2f/events",
        "/tasks/1/ranking.%2e%2e",
        "/api/v1/runs/%2e%2e%2fx",
        "/api/v1/batches/..%2f",
    ],
)
def test_no_path_leads_out(client, path):
    answer = client.get(path)
    assert answer.status in (401, 404, 405), path
    assert "root:" not in answer.text and "import " not in answer.text


# -- sizes -----------------------------------------------------------------------------------------


def test_an_upload_that_is_too_large_is_refused_where_it_becomes_so(serve, token, database):
    ada = Client(serve(upload_mib=1), token("ada", "write"))
    records = b"".join(line(run(f"a{i}", seed=i)) for i in range(3))
    answer = ada.post("/api/v1/runs", records + b" " * MIB)
    assert (answer.status, answer.json["error"]) == (413, "the body has more than 1048576 bytes")
    small = gzip.compress(records + b" " * (8 * MIB))
    assert len(small) < 20_000
    answer = ada.post("/api/v1/runs", small, Content_Encoding="gzip")
    assert (answer.status, answer.json["error"]) == (413, "the body has more than 1048576 bytes")


def test_empty_lines_count(serve, token, database):
    ada = Client(serve(), token("ada", "write"))
    most = line(run("a")) + b"\n" * (MOST_LINES - 1)
    words = "more than 100000 lines; allowed: several uploads"
    for body, headers in (
        (most + b"\n", {}),
        (most + b"{", {}),
        (gzip.compress(b"\n" + most), {"Content_Encoding": "gzip"}),
    ):
        answer = ada.post("/api/v1/runs", body, **headers)
        assert (answer.status, answer.json["error"]) == (413, words)
    assert ada.post("/api/v1/runs", most).json["new"] == 1
    client = Client(ada.url)
    client.sign_in(token("bob", "write"))
    client.get("/uploads")
    assert client.submit_parts("/uploads", [("file", "\n" * MOST_LINES)]).status == 200
    answer = client.submit_parts("/uploads", [("file", "\n" * (MOST_LINES + 1))])
    assert (answer.status, words in answer.text) == (413, True)


def test_gzip_of_several_members_and_broken_gzip(serve, token, database):
    ada = Client(serve(), token("ada", "write"))
    joined = gzip.compress(line(run("a"))) + gzip.compress(line(run("b", seed=2)))
    answer = ada.post("/api/v1/runs", joined, Content_Encoding="gzip")
    assert (answer.json["new"], answer.json["refused"]) == (2, 0)
    for body, words in (
        (b"no gzip", "the body is not in gzip's format"),
        (joined[:-5], "the body ends before its gzip stream"),
        (b"", "the body ends before its gzip stream"),
    ):
        answer = ada.post("/api/v1/runs", body, Content_Encoding="gzip")
        assert (answer.status, answer.json["error"]) == (400, words)
    answer = ada.post("/api/v1/runs", b"", Content_Encoding="br")
    assert answer.status == 415


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_line_that_never_ends(serve, token):
    address = serve(upload_mib=80)
    place = urlsplit(address)
    secret = token("ada", "write")
    with socket.create_connection((place.hostname, place.port)) as connection:
        head = (
            f"POST /api/v1/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(head.encode())
        piece = b"x" * MIB
        try:
            for _ in range(200):
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        except OSError:  # it has answered and closed
            pass
        connection.settimeout(120)
        answer = connection.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_file_of_a_stranger_is_not_read(serve, token, database):
    """A form that goes on is refused before its end: nothing of it is kept."""
    place = urlsplit(serve())
    with socket.create_connection((place.hostname, place.port)) as connection:
        head = (
            "POST /uploads HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            "Content-Length: 100000000\r\n\r\n--b\r\n"
        )
        connection.sendall(head.encode())
        connection.settimeout(120)
        answer = connection.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_a_file_is_uploaded_by_a_form(serve, token, database):
    client = Client(serve())
    client.sign_in(token("ada", "write"))
    assert client.get("/uploads").status == 200
    key = next(c.value for c in client.cookies if c.name == "lrbench_form")
    parts = [("form_key", "", key.encode()), ("note", "", b"by hand"), ("link", "", b"")]
    parts.append(("file", '; filename="runs.jsonl"', line(run("a")) + b"{\n"))
    body = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, more, content in parts
    )
    kind = {"Content_Type": "multipart/form-data; boundary=b"}
    answer = client.post("/uploads", body + b"--b--\r\n", **kind)
    assert (answer.status, "1 new, 0 already there, 1 refused" in answer.text) == (200, True)
    assert database.get("a").contribution.note == "by hand"
    assert client.post("/uploads", b"--b--\r\n", **kind).status == 403


def test_too_many_requests(serve, monkeypatch):
    monkeypatch.setattr(security, "WINDOW", 1000.0)  # that none of them is a minute ago by now
    client = Client(serve(requests=5, writes=2))
    assert [client.get("/health").status for _ in range(7)] == [200] * 5 + [429] * 2
    assert int(client.get("/health").headers["Retry-After"]) in range(1, 1002)
    assert [client.post("/api/v1/runs").status for _ in range(3)] == [401, 401, 429]
    assert client.post("/api/v1/runs").json["error"].startswith("too many requests")

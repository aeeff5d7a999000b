"""Tokens, uploads, and which runs count."""

from __future__ import annotations

import dataclasses
import hashlib
import time

import pytest

from lrbench_caffe.database import Database, exchange
from lrbench_caffe.database.errors import RecordError
from lrbench_caffe.database.platform import Platform
from lrbench_caffe.database.uploads import Answer, receive
from lrbench_caffe.errors import InputError, ParameterError
from lrbench_caffe.records import Contribution, Start
from tests.database.records import DATASET, NETWORK, at, policy, run

ADA = Contribution("b1", "ada", "on a laptop", "https://example.org/ada", 5000.0)
OTHER_DATA = dataclasses.replace(DATASET, name="other", digest="d2")
BOB = Contribution("b2", "bob", None, None, 6000.0)


@pytest.fixture
def platform(database):
    return Platform(database)


def send(database: Database, contribution: Contribution, *records: object) -> list[Answer]:
    lines = [r if isinstance(r, bytes) else exchange.to_line(r).encode() for r in records]
    return list(receive(database, lines, contribution))


def task_id(database: Database) -> int:
    (found,) = (t.id for t in database.tasks() if t.dataset == DATASET)
    return found


def top1s(database: Database) -> list[float]:
    return [s.top1.mean for s in database.summaries(task_id(database)) if s.top1]


# -- tokens ----------------------------------------------------------------------------------------


def test_a_token_is_known_by_its_secret_which_is_not_stored(database, platform):
    secret = platform.add_token("ada", "write")
    token = platform.token(secret)
    assert (token.name, token.scope, token.expires, token.revoked) == ("ada", "write", None, None)
    assert token.valid(token.made) and token.may("read") and token.may("write")
    assert not token.may("admin")
    assert platform.token(secret[:-1]) is None and platform.token("") is None
    stored = database.transactions.read(
        lambda c: c.exec_driver_sql("SELECT name, hash FROM token").all()
    )
    assert [tuple(row) for row in stored] == [("ada", hashlib.sha256(secret.encode()).hexdigest())]
    assert len(secret) >= 40


def test_a_token_ends_by_time_or_when_it_is_revoked(platform):
    token = platform.token(platform.add_token("ada", "read", seconds=60))
    assert token.valid(token.made + 59) and not token.valid(token.made + 60)
    secret = platform.add_token("bob", "admin")
    platform.revoke("bob")
    first = platform.token(secret)
    assert not first.valid(first.made + 1)
    platform.revoke("bob")
    assert platform.token(secret) == first
    assert [token.name for token in platform.tokens()] == ["ada", "bob"]


@pytest.mark.parametrize("before", ["valid", "expired", "revoked"])
def test_a_renewed_token_is_the_same_with_another_secret(platform, before):
    first = platform.add_token("ada", "admin", seconds=0.001 if before == "expired" else None)
    if before == "revoked":
        platform.revoke("ada")
    second = platform.renew_token("ada", seconds=60)
    assert second != first and platform.token(first) is None
    token = platform.token(second)
    assert (token.name, token.scope, token.revoked) == ("ada", "admin", None)
    assert token.valid(token.made + 59) and not token.valid(token.made + 60)
    assert platform.tokens() == [token]
    assert platform.token(platform.renew_token("ada")).expires is None


@pytest.mark.parametrize(
    ("name", "scope", "error", "words"),
    [
        (
            "ada",
            "read",
            InputError,
            "name: there is a token for 'ada'; allowed: another name, or to renew",
        ),
        ("", "read", RecordError, "name: ''; allowed: a name of 1 to 100 characters"),
        ("a\nb", "read", RecordError, "name: "),
        ("x" * 101, "read", RecordError, "name: "),
        ("eve", "root", ParameterError, "scope: 'root'; allowed: read, write, admin"),
    ],
)
def test_a_token_that_cannot_be(platform, name, scope, error, words):
    platform.add_token("ada", "write")
    with pytest.raises(error, match="^" + words.replace("(", r"\(")):
        platform.add_token(name, scope)
    assert [token.name for token in platform.tokens()] == ["ada"]


def test_to_revoke_or_renew_what_is_not_there(platform):
    for change in (platform.revoke, platform.renew_token):
        with pytest.raises(InputError, match="name: there is no token for 'eve'"):
            change("eve")


# -- uploads ---------------------------------------------------------------------------------------


def test_each_line_is_answered_and_stored_with_the_contribution_of_its_token(database, platform):
    pretended = dataclasses.replace(run("b"), contribution=BOB)
    answers = send(database, ADA, run("a"), b"{", pretended, run("c", max_iter=0))
    assert [(a.line, a.uid, a.result) for a in answers] == [
        (1, "a", "new"),
        (2, None, "refused"),
        (3, "b", "new"),
        (4, None, "refused"),
    ]
    assert answers[1].reason.startswith("not JSON: ")
    assert answers[3].reason == "run.max_iter: 0; allowed: 1 to 2147483647" or (
        answers[3].reason == "max_iter: 0; allowed: 1 to 2147483647"
    )
    assert database.get("a").contribution == database.get("b").contribution == ADA
    (batch,) = platform.batches()
    assert (batch.contribution, batch.runs, batch.hidden, batch.unverified) == (ADA, 2, 0, 0)


def test_what_is_sent_again_is_there_already_and_stays_whose_it_was(database):
    later = dataclasses.replace(ADA, batch="b9", sent=7000.0)
    send(database, ADA, run("a"))
    assert [a.result for a in send(database, later, run("a"), run("b"))] == ["present", "new"]
    assert send(database, dataclasses.replace(ADA, batch="b10"), run("a"))[0].result == "present"
    assert [b.contribution.batch for b in Platform(database).batches()] == ["b9", "b1"]
    assert database.get("a").contribution == ADA
    assert database.get("b").contribution == later


def test_a_contributor_completes_own_runs_and_changes_no_others(database):
    database.put(run("ours"))
    send(database, ADA, run("a"))
    longer = {"ended": 2000.0, "max_iter": 400, "measurements": [at(100, 90.0), at(400, 96.0)]}
    assert send(database, BOB, run("a")) == [Answer(1, "a", "present")]
    for uid in ("a", "ours"):
        (answer,) = send(database, BOB, run(uid, **longer))
        assert (answer.result, answer.reason) == (
            "refused",
            f"uid: {uid!r} is not a run of 'bob'; allowed: own runs",
        )
        assert database.get(uid).max_iter == 300
    assert send(database, ADA, run("a", **longer)) == [Answer(1, "a", "new")]
    assert database.get("a").max_iter == 400
    assert database.get("a").contribution == ADA


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (run("p", source="paper"), "source: 'paper'; allowed: measured, imported"),
        (run("r", status="running"), "status: 'running'; allowed: a training that has ended"),
        (run("m", max_iter=250), "measurement.iteration: 300; allowed: 0 to max_iter, 250"),
        (
            run("n", repeats=5),
            "repeats: 5, top1_sd: None; allowed: 1 and null, as a run is one training",
        ),
        (
            run("s", top1_sd=0.1),
            "repeats: 1, top1_sd: 0.1; allowed: 1 and null, as a run is one training",
        ),
        (run("e", ended=999.5), "ended: 999.5; allowed: not before started, 1000"),
        (
            run("f", started=2.5e11, ended=None),
            "started: 250000000000; allowed: seconds since 1970, up to today's",
        ),
        (
            run("g", started=None, ended=2.5e11),
            "ended: 250000000000; allowed: seconds since 1970, up to today's",
        ),
        (
            run("t", measurements=[at(100, 95.0, top5=94.9)]),
            "measurement.top5: 94.9 at iteration 100; allowed: not below top1, 95",
        ),
        (
            run("d", dataset=dataclasses.replace(DATASET, name="d" * 201)),
            "dataset.name: 201 characters; allowed: 200",
        ),
        (
            run("w", network=dataclasses.replace(NETWORK, name="n" * 201)),
            "network.name: 201 characters; allowed: 200",
        ),
        (run("o", origin="o" * 10_001), "origin: 10001 characters; allowed: 10000"),
    ],
)
def test_what_no_contributor_can_send(database, record, reason):
    (answer,) = send(database, ADA, record)
    assert (answer.result, answer.reason) == ("refused", reason)


def test_what_is_only_just_possible_is_taken(database):
    limits = run(
        "a",
        dataset=dataclasses.replace(DATASET, name="d" * 200),
        started=time.time() + 3600,
        ended=None,
        measurements=[at(300, 95.0, top5=95.0 - 1e-7)],
    )
    moment = run("b", started=5000.0, ended=5000.0)
    assert [a.result for a in send(database, ADA, limits, moment)] == ["new", "new"]


def test_own_records_are_imported_as_before(database):
    line = exchange.to_line(run("a", repeats=5, top1_sd=0.1, max_iter=250)).encode()
    count = exchange.ImportCount(print)
    exchange.import_lines(database, [line], "f", count)
    assert (count.new, count.bad) == (1, [])


def test_a_result_is_compared_with_the_best_run_not_with_a_mean(database):
    database.put_many(
        [
            run("a", seed=1, measurements=[at(300, 99.0)]),
            run("b", seed=2, measurements=[at(300, 50.0)]),
        ]
    )
    assert top1s(database) == [74.5]
    fix = policy("FIX(k0=0.1)")
    near, far = (run(f"c{t}", policy=fix, measurements=[at(300, t)]) for t in (98.9, 99.6))
    assert send(database, ADA, near) == [Answer(1, near.uid, "new")]
    assert send(database, ADA, far)[0].reason == (
        "Top-1 99.60 % is far above 99.00 %, the best of all others on this task"
    )


def test_only_runs_that_count_are_compared_with(database, platform):
    put = {"hidden": 97.0, "unverified": 96.0, "ours": 90.0}
    database.put_many(
        [run(uid, seed=n, measurements=[at(300, t)]) for n, (uid, t) in enumerate(put.items())]
    )
    database.put(run("late", seed=9, status="stopped", measurements=[at(300, 99.0)]))
    platform.set_standing(["hidden"], "hidden")
    platform.set_standing(["unverified"], "unverified")
    (answer,) = send(database, ADA, run("far", seed=5, measurements=[at(300, 95.5)]))
    assert answer.reason == (
        "Top-1 95.50 % is far above 90.00 %, the best of all others on this task"
    )


@pytest.mark.parametrize("refused", [(), (run("bobs", seed=3, measurements=[at(300, 90.0)]),)])
def test_the_first_results_of_a_task_are_compared_with_each_other(database, refused):
    """Also where one of them is refused, and each is stored by itself."""
    send(database, BOB, run("bobs", seed=3, measurements=[], dataset=OTHER_DATA))
    first, second = (run(f"r{t}", seed=t, measurements=[at(300, float(t))]) for t in (100, 90))
    far, near, *_ = send(database, ADA, first, second, *refused)
    words = "Top-1 100.00 % is far above 90.00 %, the best of all others on this task"
    assert (far.result, far.reason, near.reason) == ("new", words, None)
    assert top1s(database) == [90.0]


def test_a_run_that_finished_without_its_tests_is_doubted(database):
    empty = [
        run("a", seed=1, measurements=[]),
        run("b", seed=2, measurements=[], test_interval=400),
        run("c", seed=3, measurements=[], test_interval=None),
        run("d", seed=4, measurements=[], status="failed"),
        run("e", seed=5, measurements=[], start=Start("snapshot", "d" * 32, iteration=300)),
    ]
    reasons = [a.reason for a in send(database, ADA, *empty)]
    words = "it finished without a test, though there should be one every 100 iterations"
    assert reasons == [words, None, None, None, None]


def test_a_result_far_above_all_others_does_not_count_until_it_is_verified(database, platform):
    # Errors of 5 % are known; 2 % is less than half of it.
    database.put(run("ours", seed=1))
    far = [at(300, 98.0)]
    near = [at(300, 97.4)]
    (answer,) = send(database, ADA, run("far", seed=2, measurements=far))
    assert answer == Answer(
        1, "far", "new", "Top-1 98.00 % is far above 95.00 %, the best of all others on this task"
    )
    assert top1s(database) == [95.0]
    assert send(database, ADA, run("near", seed=3, measurements=near)) == [Answer(1, "near", "new")]
    assert top1s(database) == [pytest.approx((95.0 + 97.4) / 2)]
    assert platform.batches()[0].unverified == 1
    platform.set_standing(["far"], "shown")
    assert top1s(database) == [pytest.approx((95.0 + 97.4 + 98.0) / 3)]
    assert platform.batches()[0].unverified == 0


@pytest.mark.parametrize("source", ["measured", "imported"])
@pytest.mark.parametrize("ended", [1060.0, 2000.0], ids=["the same end", "a later end"])
def test_a_run_that_is_completed_by_a_result_far_above_others_is_doubted(
    database, platform, source, ended
):
    database.put(run("ours", seed=1))
    sent = run("far", seed=2, source=source, measurements=[at(100, 90.0)])
    assert send(database, ADA, sent) == [Answer(1, "far", "new")]
    assert platform.outcomes(["far"])["far"].standing == "shown"
    whole = dataclasses.replace(sent, ended=ended, measurements=[at(100, 90.0), at(300, 98.0)])
    # Errors of 5 % are known; 2 % is less than half of it.
    words = "Top-1 98.00 % is far above 95.00 %, the best of all others on this task"
    assert send(database, ADA, whole) == [Answer(1, "far", "new", words)]
    found = platform.outcomes(["far"])["far"]
    assert (found.top1, found.standing, found.doubt) == (98.0, "unverified", words)
    assert top1s(database) == [95.0]
    # An admin who has looked at it is not asked again.
    platform.set_standing(["far"], "shown")
    assert send(database, ADA, whole)[0].result == "present"
    assert platform.outcomes(["far"])["far"].standing == "shown"


def test_the_first_result_of_a_task_is_not_doubted(database):
    assert send(database, ADA, run("a", measurements=[at(300, 99.9)])) == [Answer(1, "a", "new")]


def test_hidden_runs_do_not_count_and_stay_hidden_when_they_are_sent_again(database, platform):
    for record in (run("a"), run("b", seed=2, measurements=[at(300, 80.0)])):
        send(database, ADA, record)
    assert top1s(database) == [87.5]
    platform.set_standing(["a"], "hidden", "a test net with training data")
    assert top1s(database) == [80.0]
    send(database, ADA, run("a", ended=2000.0, measurements=[at(300, 97.0)]))
    assert database.get("a").measurements[-1].top1 == 97.0
    assert top1s(database) == [80.0]
    assert platform.batches()[0].hidden == 1
    platform.set_standing(["b"], "hidden")
    assert top1s(database) == []
    platform.set_standing(["a", "b"], "shown")
    assert top1s(database) == [88.5]
    with pytest.raises(ParameterError, match="standing: 'gone'; allowed: shown, unverified, hid"):
        platform.set_standing(["a"], "gone")


def test_an_upload_is_taken_back_whole(database, platform):
    before = database.counts()
    send(database, ADA, *(run(f"a{i}", seed=i) for i in range(7)))
    send(database, BOB, run("b", seed=50))
    assert platform.batch("b1") == ADA
    assert platform.take_back("b1") == 7
    assert platform.batch("b1") is None
    assert list(database.uids("a0")) == []
    assert platform.take_back("b1") == 0
    assert platform.take_back("b2") == 1
    assert database.counts() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"link": "javascript:alert(1)"},
            "contribution.link: 'javascript:alert(1)'; allowed: http",
        ),
        ({"link": "https://"}, "contribution.link: "),
        ({"note": "x" * 2001}, "contribution.note: 2001 characters; allowed: 2000"),
        ({"note": "a\x1b[2J"}, "contribution.note: "),
        ({"contributor": " "}, "contribution.contributor: ' '; allowed: a name"),
        ({"contributor": "ada "}, "contribution.contributor: 'ada '; allowed: a name of 1 to 100"),
        ({"batch": ""}, "contribution.batch: empty"),
        ({"sent": -1.0}, "contribution.sent: -1.0; allowed: 0 to "),
    ],
)
def test_a_contribution_that_cannot_be(database, platform, change, message):
    wrong = dataclasses.replace(ADA, **change)
    with pytest.raises(RecordError) as caught:
        database.put(run("a", contribution=wrong))
    assert str(caught.value).startswith(message)
    assert platform.batches() == []


def test_a_batch_is_one_contribution(database, platform):
    send(database, ADA, run("a"))
    send(database, ADA, run("b"))
    other = dataclasses.replace(BOB, batch="b1")
    with pytest.raises(RecordError, match="'b1' is another one in the database: its contributor"):
        database.put(run("c", contribution=other))
    assert [b.contribution for b in platform.batches("ada")] == [ADA]
    assert platform.batches("bob") == []


def test_contributions_travel_with_exports(database, new_url):
    send(database, ADA, run("a"))
    database.put(run("own", seed=2))
    lines = [line.encode() for line in exchange.export_lines(database)]
    with Database.open(new_url("sqlite")) as other:
        exchange.import_lines(other, lines, "f", exchange.ImportCount(print))
        assert other.get("a").contribution == ADA
        assert other.get("own").contribution is None
        # What is mine stays mine, also when it comes back from a platform.
        again = dataclasses.replace(run("own", seed=2), contribution=BOB)
        assert other.put(again) is False
        assert other.get("own").contribution is None


# -- what lists of runs need -----------------------------------------------------------------------


def test_outcomes_of_runs_come_without_their_measurements(database, platform):
    loser = run("b", measurements=[at(100, None, test_loss=0.7), at(200, None, test_loss=0.4)])
    database.put_many([run("a"), loser])
    platform.set_standing(["a"], "unverified", "too good")
    found = platform.outcomes(["a", "b", "c"])
    assert {uid: (o.top1, o.loss, o.standing, o.doubt) for uid, o in found.items()} == {
        "a": (95.0, 0.3, "unverified", "too good"),
        "b": (None, 0.4, "shown", None),
    }


def test_runs_that_are_not_shown_are_counted_and_paged(database, platform):
    database.put_many([run("a"), run("b"), run("c"), run("d", dataset=OTHER_DATA)])
    platform.set_standing(["a", "d"], "unverified")
    platform.set_standing(["b"], "hidden")
    first, other = (t.id for t in database.tasks() if t.dataset in (DATASET, OTHER_DATA))
    assert platform.not_shown() == {"unverified": 2, "hidden": 1}
    assert platform.not_shown(first) == {"unverified": 1, "hidden": 1}
    assert platform.not_shown(other) == {"unverified": 1, "hidden": 0}
    assert [r.uid for r in database.page(standing="unverified")] == ["d", "a"]
    assert [r.uid for r in database.page(standing="hidden")] == ["b"]


def test_a_page_of_one_policys_runs(database):
    database.put_many([run("a"), run("b", policy=policy("FIX(k0=0.1)"))])
    assert [r.uid for r in database.page(policy="FIX(k0=0.1)", source="measured")] == ["b"]


def test_the_best_run_of_a_summary(database, platform):
    database.put_many(
        [
            run("a", seed=1),
            run("b", seed=2, measurements=[at(100, 97.0)]),
            run("c", seed=3, measurements=[at(100, 99.0)]),
            run("d", seed=4, measurements=[at(100, 98.0)], status="stopped"),
            run("e", seed=1, policy=policy("FIX(k0=0.1)"), measurements=[at(100, None)]),
        ]
    )
    platform.set_standing(["c"], "hidden")
    task = next(t.id for t in database.tasks() if t.dataset == DATASET)
    ids = {s.policy.function: s.id for s in database.summaries(task)}
    assert platform.best_runs(task, [ids["FIX"], ids["SIN2"]]) == ["e", "b"]
    assert platform.best_runs(task + 1, [ids["SIN2"]]) == []  # of another task
    assert platform.best_runs(task, [10**9]) == []

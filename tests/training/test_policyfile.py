"""The policy of a JSON file of another command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.training.policyfile import is_policy_file, policy_of_file

BEST, OWN = "SIN2(k0=0.01, k1=0.06, l=50)", "STEP(k0=0.1, gamma=0.5, l=100)"


def verdict(recommended: str | None, own: str | None = OWN) -> dict[str, Any]:
    return {"verdict": {"recommended": recommended, "own": own, "text": "keep your own policy"}}


@pytest.mark.parametrize(
    ("content", "policy", "note"),
    [
        (verdict(BEST), BEST, ""),
        (verdict(None), OWN, "recommends no other policy than the solver's own"),
        ({"policy": BEST, "seed": 1}, BEST, ""),  # run.json
        ({"proposals": [{"policy": BEST}, {"policy": OWN}]}, BEST, ""),  # recommend --json
    ],
)
def test_the_policy(tmp_path: Path, content: Any, policy: str, note: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    found, said = policy_of_file(path)
    assert found == policy
    assert said == (f"{path} {note}" if note else "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json.dumps(verdict(None, None)), "no policy is recommended there: keep your own policy"),
        (json.dumps({"verdict": None, "failure": "all trainings failed"}), "all trainings failed"),
        (json.dumps({"proposals": []}), "nothing is proposed there"),
        (json.dumps({"low": 0.1, "policies": {}}), "it has no policy; allowed: result.json"),
        (json.dumps({"policy": 0.1}), "it has no policy"),
        (json.dumps([BEST]), "it has no policy"),
        ("SIN2", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("\xff\x00", "not JSON"),
    ],
)
def test_a_file_without_one_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as error:
        policy_of_file(path)
    assert words in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        policy_of_file(tmp_path / "none.json")
    with pytest.raises(InputError, match="Is a directory"):
        policy_of_file(tmp_path)


def test_what_names_a_file() -> None:
    assert is_policy_file("runs/tune-x/result.json") and is_policy_file(" A.JSON ")
    assert not any(map(is_policy_file, (None, "sin2", "auto", "0.01", "json", BEST)))

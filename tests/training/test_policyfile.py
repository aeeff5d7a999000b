"""The policy of a JSON file of another command."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.prototxt.solver import load_solver
from lrbench_caffe.records import SCRATCH, UNKNOWN_START, Start
from lrbench_caffe.runtime.replies import CaffeInfo
from lrbench_caffe.training.policyfile import PolicyFile, is_policy_file

TUNED = Start("weights", "d" * 32, 5, 6, name="a.caffemodel")
BEST, OWN = "SIN2(k0=0.01, k1=0.06, l=50)", "STEP(k0=0.1, gamma=0.5, l=100)"


def verdict(recommended: str | None, own: str | None = OWN, **more: Any) -> dict[str, Any]:
    text = "keep your own policy"
    return {"verdict": {"recommended": recommended, "own": own, "text": text, **more}}


@pytest.mark.parametrize(
    ("content", "policy", "note"),
    [
        (verdict(BEST), BEST, ""),
        (verdict(None), OWN, " recommends no other policy than the solver's own"),
        (verdict(BEST, until=None), BEST, ""),
        (
            verdict(BEST, until=700),
            BEST,
            ": held-out records chose iteration 700, where until 700 stops",
        ),
        (
            verdict(None, until=700),
            OWN,
            " recommends no other policy than the solver's own; held-out records chose iteration 700, "
            "where until 700 stops",
        ),
        ({"policy": BEST, "seed": 1}, BEST, ""),  # run.json
        ({"proposals": [{"policy": BEST}, {"policy": OWN}]}, BEST, ""),  # recommend --json
    ],
)
def test_the_policy(tmp_path: Path, content: Any, policy: str, note: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    found = PolicyFile.read(path)
    assert found.policy == policy
    assert found.note == (f"{path}{note}" if note else "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json.dumps(verdict(None, None)), "no policy is recommended there: keep your own policy"),
        (json.dumps({"verdict": None, "failure": "all trainings failed"}), "all trainings failed"),
        (json.dumps({"proposals": []}), "nothing is proposed there"),
        (json.dumps({"low": 0.1, "policies": {}}), "it has no policy; allowed: result.json"),
        (json.dumps({"policy": 0.1}), "it has no policy"),
        (json.dumps({"policy": "FIX(k0=nan)"}), "k0=nan"),
        (json.dumps({"verdict": {"recommended": 5}}), "recommended: 5 is no policy"),
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
        PolicyFile.read(path)
    assert words in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("start", "weights", "words"),
    [
        (TUNED, [], "found from weights a.caffemodel, 5 of 6 layers filled; this training begins with"),
        (TUNED, ["b.caffemodel"], ""),  # fine-tuned, too
        (SCRATCH, ["b.caffemodel"], "found from random weights; this training begins with b.caffemodel"),
        (SCRATCH, [], ""),
        (UNKNOWN_START, [], ""),
        (None, ["b.caffemodel"], ""),
    ],
)  # fmt: skip
def test_another_start_is_remarked(
    tmp_path: Path, start: Start | None, weights: list[str], words: str
) -> None:
    path = tmp_path / "result.json"
    content = {"policy": BEST, "start": start and dataclasses.asdict(start)}
    path.write_text(json.dumps(content))
    remark = PolicyFile.read(path).remark_on_start(weights)
    assert words in remark and bool(remark) == bool(words)


def test_a_recommendation_says_for_which_start_it_is(tmp_path: Path) -> None:
    path = tmp_path / "recommended.json"
    found = {"start": str(TUNED), "start_details": dataclasses.asdict(TUNED), "max_iter": 700}
    path.write_text(json.dumps({**found, "proposals": [{"policy": BEST}]}))
    assert PolicyFile.read(path).remark_on_length(700) == ""
    assert "found from weights a.caffemodel" in PolicyFile.read(path).remark_on_start([])


@pytest.mark.parametrize("start", [5, {"kind": "x", "colour": 1}, []])
def test_a_start_that_is_none_is_not_known(tmp_path: Path, start: Any) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"policy": BEST, "start": start}))
    assert PolicyFile.read(path).remark_on_start(["b.caffemodel"]) == ""


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        (
            {**verdict(BEST), "max_iter": 70000},
            ": its policy is of trainings of 70,000 iterations; this one has 5,000, to which it is not "
            "adapted",
        ),
        ({"policy": BEST, "max_iter": 5000}, ""),  # of the same length
        ({"proposals": [{"policy": BEST}]}, ""),  # adapted already
        *(({"policy": BEST, "max_iter": value}, "") for value in (None, True, 0, "9", 9.5, [])),
    ],
)
def test_another_length_is_remarked(tmp_path: Path, content: Any, remark: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    assert PolicyFile.read(path).remark_on_length(5000) == (f"{path}{remark}" if remark else "")


@pytest.mark.parametrize(
    ("content", "level", "stages", "words"),
    [
        ({"level": 0, "stages": ["drop"]}, 0, [], "with level 0 and stages drop; this training has level 0"),
        ({"level": 2, "stages": []}, 0, [], "found with level 2 and no stage; this training has level 0"),
        ({"level": 0, "stages": ["b", "a"]}, 0, ["a", "b"], ""),
        ({}, 3, ["a"], ""),  # of an earlier version
    ],
)  # fmt: skip
def test_another_part_of_the_net_is_remarked(
    tmp_path: Path, content: Any, level: int, stages: list[str], words: str
) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps({**verdict(BEST), **content}))
    found = PolicyFile.read(path)
    remark = found.remark_on_net(level, stages)
    assert words in remark and bool(remark) == bool(words)
    if content.get("level") == 0:  # as the solver that a tuning has written has its stages
        assert found.remark_on_net(0, [], content["stages"]) == ""
        assert found.remark_on_net(0, content["stages"], ["own"]) == ""


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        PolicyFile.read(tmp_path / "none.json")
    with pytest.raises(InputError, match="Is a directory"):
        PolicyFile.read(tmp_path)


def test_what_names_a_file() -> None:
    assert is_policy_file("runs/tune-x/result.json") and is_policy_file(" A.JSON ")
    assert not any(map(is_policy_file, (None, "sin2", "auto", "0.01", "json", BEST)))


def with_settings(**recommended: float) -> dict[str, Any]:
    also = {"recommended": recommended, "solver": "study/recommended/solver.prototxt"}
    return {**verdict(BEST), "also": also}


def test_the_settings_that_it_was_found_with(
    tmp_path: Path, messages: Messages, caffe_info: CaffeInfo, small_net: str
) -> None:
    solver_file = tmp_path / "solver.prototxt"
    solver_file.write_text(
        f'net: "{small_net}" base_lr: 0.1 lr_policy: "fixed" max_iter: 9 momentum: 0.9 '
        "weight_decay: 0.0005"
    )
    solver = load_solver(solver_file, messages, caffe_info)
    path = tmp_path / "result.json"
    for content in (
        verdict(BEST), {**verdict(BEST), "also": None}, {**verdict(None), "also": {"recommended": None}},
        with_settings(), with_settings(batch=20, momentum=0.9, weight_decay=0.0005),
        with_settings(momentum=0.8999999761581421, weight_decay=0.0005000000001),  # equal as float32
    ):  # fmt: skip
        path.write_text(json.dumps(content))
        PolicyFile.read(path).check_settings(solver)
    path.write_text(json.dumps(with_settings(batch=40, momentum=0.9, weight_decay=0.001)))
    with pytest.raises(InputError) as error:
        PolicyFile.read(path).check_settings(solver)
    assert str(error.value) == (
        f"policy: {path}: its policy was found with batch=40, weight_decay=0.001; {solver_file} has "
        "batch=20, weight_decay=0.0005; allowed: study/recommended/solver.prototxt, which has all of it"
    )


@pytest.fixture
def small_net(tmp_path: Path) -> str:
    """A net that reads batches of 20, from a small HDF5 file."""
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "x" type: "HDF5Data" top: "data" top: "label" '
        f'hdf5_data_param {{ source: "{tmp_path}/list.txt" batch_size: 20 }} }}\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" '
        "inner_product_param { num_output: 2 } }\n"
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }\n'
    )
    (tmp_path / "list.txt").write_text(f"{tmp_path}/some.h5\n")
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file["data"], file["label"] = np.zeros((40, 3), np.float32), np.zeros(40, np.float32)
    return str(path)

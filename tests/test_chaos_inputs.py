"""The damaged inputs of tools/chaos: the same seed damages in the same way, and something is damaged."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from google.protobuf import text_format

from chaoslab.damage import files as damage
from chaoslab.damage.prototxts import Mutator, parse
from tests.caffe import nets
from tests.caffe.differential_cases import CASES

JSON = b'{"status": "finished", "seed": 7}\n'
LINES = b'{"iteration": 50, "top1": 61.0}\n{"iteration": 100, "top1": 62.5}\n{"iteration": 150, "top1": 63}\n'


KINDS = (*damage.BYTES, *damage.LINES, damage.other_value)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_kind_of_damage(kind: damage.Damage) -> None:
    """It changes most files, the same seed in the same way, and takes a file of one byte, too."""
    changed = 0
    for seed in range(40):
        found = kind(LINES, random.Random(seed))
        assert found == kind(LINES, random.Random(seed))
        changed += found != LINES
        kind(b"x", random.Random(seed))
    assert changed > 20


def test_another_value_is_still_json() -> None:
    for seed in range(40):
        json.loads(damage.other_value(JSON, random.Random(seed)))
        for line in damage.other_value(LINES, random.Random(seed)).splitlines():
            json.loads(line)


def test_a_file_is_damaged_or_gone(tmp_path: Path) -> None:
    said = set()
    for seed in range(60):
        path = tmp_path / f"{seed}.jsonl"
        path.write_bytes(LINES)
        said.add(damage.damage(path, random.Random(seed)))
        if path.is_file() and not path.is_symlink():
            path.read_bytes()
    assert any("is gone" in words for words in said)
    assert any("is a folder" in words for words in said)
    assert len(said) > 20


def test_what_is_read_is_written(messages) -> None:
    """The tree of a net and of a solver has all that protobuf's own parser finds in them."""
    for case in CASES.values():
        if case.refused or case.net is None:
            continue
        whole, again = messages.new("NetParameter"), messages.new("NetParameter")
        text_format.Parse(case.net, whole)
        text_format.Parse(parse(case.net).text(), again)
        assert again == whole


def test_the_same_seed_makes_the_same_mutant(messages, caffe_info) -> None:
    mutator = Mutator(messages, caffe_info.layers)
    texts = [mutator.mutate(nets.net(), "NetParameter", random.Random(seed)) for seed in range(200)]
    assert texts == [
        mutator.mutate(nets.net(), "NetParameter", random.Random(s)) for s in range(200)
    ]
    # At least two thirds differ from the net; others name a field again as it was.
    same = parse(nets.net()).text()
    assert sum(text not in (same, nets.net()) for text, _ in texts) > 133
    # Of each kind of change there is one.
    done = {what.split()[0] for _, words in texts for what in words.split(", ")}
    assert done >= {
        "delete",
        "duplicate",
        "rename",
        "value",
        "add",
        "add_block",
        "blobs",
        "layer_type",
    }

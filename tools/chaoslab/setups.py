"""What is trained in the trials: small nets on the digits, which take a second or two."""

from __future__ import annotations

from dataclasses import dataclass

from tests.caffe import nets

ITERATIONS = 300


@dataclass(frozen=True)
class Setup:
    """A training.

    Attributes:
        name: for people.
        net, solver: the text of net.prototxt and solver.prototxt.
        flags: of ``train``, beside the solver and --out.
        max_iter: the solver's.
    """

    name: str
    net: str
    solver: str
    flags: tuple[str, ...] = ("--lr", "SIN2(k0=0.01, k1=0.05, l=60)")
    max_iter: int = ITERATIONS


def _solver(**fields: object) -> str:
    return nets.solver(
        **{"max_iter": ITERATIONS, "test_interval": 50, "snapshot": 50, "display": 0, **fields}
    )


# The random generators of Dropout, crop and mirror continue where they were, too.
_RANDOM = nets.net(
    train=nets.data_layer("TRAIN", transform="crop_size: 6 mirror: true"),
    test=nets.data_layer("TEST", batch=100, transform="crop_size: 6"),
    middle=nets.inner_product("ip1", "data", 16)
    + nets.relu("ip1")
    + nets.dropout("ip1")
    + nets.inner_product("ip2", "ip1", 10),
)
# 300 kB for each of a snapshot's two files: several writes.
_LARGE = nets.net(
    middle=nets.inner_product("ip1", "data", 1000)
    + nets.relu("ip1")
    + nets.inner_product("ip2", "ip1", 10)
)

SETUPS = {
    setup.name: setup
    for setup in (
        Setup("plain", nets.net(), _solver()),
        Setup("random", _RANDOM, _solver()),
        Setup("large", _LARGE, _solver(max_iter=120, test_interval=40, snapshot=20), max_iter=120),
        # The tests decide on the LR.
        Setup(
            "plateau", nets.net(), _solver(test_interval=15), ("--lr", "PLATEAU(k0=0.05, gamma=0.5, n=2)")
        ),
        Setup("own", nets.net(), _solver(), ()),
        Setup("adam", _LARGE, _solver(type='"Adam"', snapshot_format="HDF5", max_iter=120, snapshot=40),
              ("--lr", "FIX(k0=0.001)"), 120),
        Setup("published", nets.net(), _solver(snapshot_prefix='"to/tiny"'),
              ("--lr", "TRI(k0=0.01, k1=0.05, l=60)", "--publish")),
        Setup("checkpoints", nets.net(), _solver(snapshot=None),
              ("--lr", "FIX(k0=0.02)", "--checkpoint-minutes", "0.002")),
    )
}  # fmt: skip

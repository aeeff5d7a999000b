"""The criteria of rankings: our metrics, costs, and any output of the test net, with its direction.

See docs/ranking.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lrbench_caffe.errors import ParameterError, did_you_mean, named
from lrbench_caffe.metrics import METRICS, OF_SCORES, Metric, scalar_names
from lrbench_caffe.records import PolicySummary


@dataclass(frozen=True)
class Criterion:
    """A criterion of a ranking.

    Attributes:
        name: as given to ``by``.
        heading: as in the paper's tables.
        kind: "utility", "cost", "robustness", or "output": one of the net's own, by its name.
        higher: True where more is better; ``guessed``: whether that is a guess.
        digits: decimals to show.
    """

    name: str
    heading: str
    kind: str
    higher: bool
    digits: int
    guessed: bool = False

    @property
    def better(self) -> str:
        """ "higher is better", or "lower is better"."""
        return f"{'higher' if self.higher else 'lower'} is better"


CRITERIA = {
    criterion.name: criterion
    for criterion in (
        *(
            Criterion(m.name, m.heading, m.kind, m.higher, m.digits)
            for m in METRICS.values()
            if m.kind is not None
        ),
        Criterion("iterations", "#Iterations", "cost", False, 0),
        Criterion("num_params", "#Param", "cost", False, 0),
        Criterion("target", "#Iterations to target", "cost", False, 0),
    )
}
# Words in names of outputs whose lower values are better, and those of which more is better.
LOSSES = frozenset(
    ("loss", "losses", "err", "error", "mse", "rmse", "mae", "mape", "dist", "distance", "entropy",
     "nll", "perplexity")
)  # fmt: skip
LOSS_ENDINGS = ("loss", "error", "entropy", "mse", "mae", "dist", "distance")  # "softmaxloss"
GAINS = frozenset(
    ("acc", "accuracy", "accuracies", "top", "topk", "iou", "miou", "map", "ap", "auc", "auroc",
     "f1", "dice", "precision", "recall", "psnr", "ssim", "score", "eval")
)  # fmt: skip
COSTS = tuple(c.name for c in CRITERIA.values() if c.kind == "cost")


def output(
    name: str,
    higher: bool | None = None,
    pairs: Iterable[tuple[float, float]] = (),
    *,
    parameter: str = "by",
) -> Criterion:
    """The criterion of an output of the net.

    Args:
        name: as Caffe prints it.
        higher: whether more is better; None to find out (see ``direction``).
        pairs: its values with the test losses beside them, where it was measured.
        parameter: what has the name.

    Raises:
        ParameterError: nothing tells which is better, or a metric of a further head has another
            direction.
    """
    own = _metric_of_head(name)
    if own is not None:
        return Criterion(name, name, "output", own_direction(own, higher), own.digits)
    if higher is not None:
        return Criterion(name, name, "output", higher, 4)
    found = direction(name, pairs)
    if found is None:
        raise ParameterError(
            "{" + parameter + "}: {0}: is more of it better, or less? {higher} says so", name
        )
    return Criterion(name, name, "output", found, 4, guessed=True)


def first_output(names: Iterable[str]) -> Criterion:
    """The output that stands for a net without a Top-1 and a test loss, where none is asked for.

    It is the first by name whose name tells what is better, else the first, and more of it better.
    """
    ordered = sorted(names)
    telling = (name for name in ordered if direction(name) is not None)
    name = next(telling, None)
    if name is not None:
        return output(name)
    return Criterion(ordered[0], ordered[0], "output", True, 4, guessed=True)


def direction(name: str, pairs: Iterable[tuple[float, float]] = ()) -> bool | None:
    """Whether more of an output is better, None where nothing tells.

    Our metrics of a further head have their own. Less is better of what is called a loss or an
    error, or equals the test loss; more of what is called an accuracy or the like.

    Args:
        pairs: its values with the test losses beside them.
    """
    own = _metric_of_head(name)
    if own is not None:
        return own.higher
    by_name = direction_by_name(name)
    if by_name is not False and _is_test_loss(pairs):
        return False
    return by_name


def _metric_of_head(name: str) -> Metric | None:
    """Our metric of scores that "fc8.top1" is of a further head; None for what is none."""
    head, _, last = name.rpartition(".")
    return METRICS[last] if head and last in OF_SCORES else None


def direction_by_name(name: str) -> bool | None:
    """Whether more is better of an output, by the words of its name; None where none of them tells.

    What follows the last slash counts most: GoogLeNet's "loss3/top-1" is an accuracy.

    >>> direction_by_name("accuracy_terrain"), direction_by_name("bboxLoss"), direction_by_name("y")
    (True, False, None)
    """
    for part in reversed(name.split("/")):
        words = _words(part)
        if words & LOSSES or any(word.endswith(LOSS_ENDINGS) for word in words):
            return False
        if words & GAINS:
            return True
    return None


def _words(name: str) -> set[str]:
    """The words of a name, in lower case and the singular: "IoU_2", "loss1", "bboxLoss", "top5errors"."""
    found = {
        *re.split(r"[^a-z0-9]+", name.lower()),  # "f1"
        *re.findall(r"[a-z]+", name.lower()),
        *(word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)),
    }
    return found | {word[:-1] for word in found if word.endswith("s")}


def _is_test_loss(pairs: Iterable[tuple[float, float]]) -> bool:
    pairs = list(pairs)
    return bool(pairs) and all(math.isclose(*pair, rel_tol=1e-5) for pair in pairs)


def outputs_of(results: Iterable[PolicySummary]) -> list[str]:
    """The names of the net's own outputs that any result has and that are single numbers, in order."""
    return sorted(scalar_names(one.outputs for one in results))


def beside_test_loss(name: str, results: Iterable[PolicySummary]) -> list[tuple[float, float]]:
    """The means of an output with those of the test loss, of the results that have both."""
    return [
        (one.outputs[name].mean, one.test_loss.mean)
        for one in results
        if name in one.outputs and one.test_loss
    ]


def direction_note(asked: Iterable[Criterion]) -> str:
    """Which way the net's own outputs are compared, for people; empty where none is."""
    own = [criterion for criterion in asked if criterion.kind == "output"]
    text = ", ".join(f"{criterion.name}: {criterion.better}" for criterion in own)
    if any(criterion.guessed for criterion in own):
        text += f" (assumed; {named('higher')} overrides it)"
    return text


def own_criterion(name: str, higher: bool | None) -> Criterion:
    """One of our metrics.

    Args:
        higher: whether more is better, if anything was said.

    Raises:
        ParameterError: that is not the metric's own direction.
    """
    own_direction(METRICS[name], higher)
    return CRITERIA[name]


def own_direction(metric: Metric, higher: bool | None) -> bool:
    """Whether more of one of our metrics is better.

    Raises:
        ParameterError: something else was said.
    """
    if higher is not None and higher != metric.higher:
        raise ParameterError(
            "{higher}: {0} is better if it is {1}; allowed: with an output of the net",
            metric.title,
            "higher" if metric.higher else "lower",
        )
    return metric.higher


def criteria(
    text: str, results: Sequence[PolicySummary] = (), higher: bool | None = None
) -> list[Criterion]:
    """The criteria of "top1,iterations".

    Args:
        results: those whose outputs of the net are criteria too.
        higher: whether more is better for those (see ``output``).

    Raises:
        InputError: an unknown or repeated one.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    found = [_criterion(name, "by", results, higher) for name in names]
    if not found or len({criterion.name for criterion in found}) < len(found):
        raise ParameterError(
            "{by}: {0!r}; allowed: one or more of {1}, each once", text, ", ".join(CRITERIA)
        )
    return found


def weights(
    text: str, results: Sequence[PolicySummary] = (), higher: bool | None = None
) -> dict[Criterion, float]:
    """The weights of "top1=2,iterations=1" (see ``criteria``).

    Raises:
        InputError: an unknown criterion, or a weight that is not a number above 0.
    """
    weighted: dict[Criterion, float] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.rpartition("="))
        if not name:
            name, value = value, ""
        criterion = _criterion(name, "weights", results, higher)
        try:
            weight = float(value)
        except ValueError:
            weight = 0.0
        if not 0 < weight < math.inf or criterion in weighted:
            raise ParameterError(
                "{weights}: {0!r}; allowed: NAME=NUMBER above 0, each name once", part.strip()
            )
        weighted[criterion] = weight
    return weighted


def _criterion(
    name: str, parameter: str, results: Sequence[PolicySummary], higher: bool | None
) -> Criterion:
    """A criterion by its name, an output of the net by just that name, our own in any case."""
    outputs = outputs_of(results)
    if name in outputs and name not in CRITERIA:
        return output(name, higher, beside_test_loss(name, results), parameter=parameter)
    if name.lower() in CRITERIA:
        return CRITERIA[name.lower()]
    known = (*CRITERIA, *outputs)
    hint = did_you_mean(name, known) or ";"
    raise ParameterError(
        "{" + parameter + "}: unknown criterion {0!r}{1} known: {2}", name, hint, ", ".join(known)
    )

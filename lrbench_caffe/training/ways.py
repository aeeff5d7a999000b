"""How Caffe gets the LR of an update: from its lr_policy, from base_lr, or from scaled gradients.

The solver's own lr_policy is left to Caffe where nothing else asks for the LR, and then the weights
are those of ``caffe train`` to the bit. A policy of the LR module sets base_lr before each update,
or, on a Caffe whose base_lr cannot be set from Python (1.0), scales the gradients.
"""

from __future__ import annotations

from lrbench_caffe.errors import ParameterError
from lrbench_caffe.prototxt.patch import BASE_LR, GRADIENTS, LR_POLICY, check_settable
from lrbench_caffe.prototxt.solver import LINEAR, Solver
from lrbench_caffe.runtime.replies import CaffeInfo

AUTO = "auto"


def choose_way(flag: str, own_policy: bool, solver: Solver, info: CaffeInfo) -> str:
    """One of LR_WAYS for a training that begins.

    Args:
        flag: "auto", or the way that was asked for.
        own_policy: whether the LR policy is the solver's own.
        solver: what is trained.
        info: the Caffe.

    Raises:
        InputError: this Caffe, solver or policy cannot be served in the way that is asked for, or
            in any.
    """
    if flag == AUTO and own_policy:
        return LR_POLICY
    if flag == LR_POLICY and not own_policy:
        raise ParameterError(
            "{set_lr_by} {0}: only for the solver's own lr_policy; allowed: {1}, {2}",
            flag,
            BASE_LR,
            GRADIENTS,
        )
    if flag == AUTO:
        check_settable(solver, info)
        return BASE_LR if info.writable_base_lr else GRADIENTS
    problem = _problem(flag, solver, info)
    if problem:
        raise problem
    return flag


def resumed_way(
    flag: str, own: str, own_policy: bool, solver: Solver, info: CaffeInfo
) -> tuple[str, str | None]:
    """The way of a run that is resumed: its own, unless this Caffe cannot or another is asked for.

    Args:
        own: the way that the run was trained in so far.

    Returns:
        The way, and a note where it is another one than before.

    Raises:
        InputError: the run cannot be continued in any way, or not in the one that is asked for.
    """
    if flag not in (AUTO, own):
        return choose_way(
            flag, own_policy, solver, info
        ), f"the LR is now set by {flag}, before by {own}"
    problem = _problem(own, solver, info)
    if problem is None:
        return own, None
    if own == BASE_LR and not _problem(GRADIENTS, solver, info):
        return GRADIENTS, (
            f"this Caffe ({info.caffe} in {info.path}) cannot set base_lr, with which the run began: "
            "the LR is now set by scaled gradients, which is the same to rounding"
        )
    raise problem.within("{resume}: ")


def _problem(way: str, solver: Solver, info: CaffeInfo) -> ParameterError | None:
    """Why a way cannot be taken, None where it can."""
    if way == BASE_LR and not info.writable_base_lr:
        return ParameterError(
            "{set_lr_by} {0}: this Caffe ({1} in {2}) cannot set it from Python",
            way,
            info.caffe,
            info.path,
        )
    if way == GRADIENTS and solver.type not in LINEAR:
        return ParameterError(
            "{0}: type is {1!r}; {set_lr_by} {2} works with SGD and Nesterov only",
            solver.path,
            solver.type,
            way,
        )
    return None

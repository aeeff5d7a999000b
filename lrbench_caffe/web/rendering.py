"""Pages out of templates: everything that a template shows is escaped."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import plotly
from starlette.requests import Request
from starlette.responses import Response
from starlette.templating import Jinja2Templates

from lrbench_caffe import __version__
from lrbench_caffe.records import Spread
from lrbench_caffe.tabular import number, plus_minus
from lrbench_caffe.web.security import form_key, set_form_key

TEMPLATES = Path(__file__).parent / "templates"
CHARTS = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


@cache  # compiled once, for all servers of a process
def templates() -> Jinja2Templates:
    """The templates, with what all of them use."""
    made = Jinja2Templates(directory=TEMPLATES)
    made.env.trim_blocks = made.env.lstrip_blocks = True
    made.env.globals.update(
        version=__version__, form_key=form_key, digest=asset_digest, run_address=run_address
    )
    made.env.filters.update(spread=spread_text, moment=moment, asking=asking)
    return made


def page(request: Request, template: str, values: dict[str, Any], status: int = 200) -> Response:
    """A page, and the cookie that its forms need."""
    made: Jinja2Templates = request.app.state.templates
    context = {"token": getattr(request.state, "token", None), **values}
    response = made.TemplateResponse(request, template, context, status_code=status)
    set_form_key(request, response)
    return response


def spread_text(spread: Spread | None, digits: int) -> str:
    """ "99.31 ± 0.02"; a dash for what was not measured."""
    if spread is None:
        return "-"
    sd = None if spread.sd is None else number(spread.sd, digits)
    return plus_minus(number(spread.mean, digits), sd)


def moment(seconds: float) -> str:
    """A time in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def asking(url: object, **values: object) -> str:
    """An address with a query: a list gives its parameter several times, None leaves it out."""
    asked = {name: value for name, value in values.items() if value is not None}
    return f"{url}?{urlencode(asked, doseq=True)}"


def run_address(request: Request, uid: str, route: str = "run") -> str:
    """The address of a run's page, or of its JSON (``run_as_json``).

    A browser resolves "." and ".." in a path; a uid with such a part stands in the query instead.
    """
    if {"", ".", ".."}.isdisjoint(uid.split("/")):
        return str(request.url_for(route, uid=quote(uid)))
    return asking(request.url_for(f"{route}_asked_for"), uid=uid)


@cache
def asset_digest(name: str) -> str:
    """What changes when a file of ``static`` does: browsers keep it until then."""
    from hashlib import sha256

    path = CHARTS if name == "plotly.js" else Path(__file__).parent / "static" / name
    return sha256(path.read_bytes()).hexdigest()[:12]

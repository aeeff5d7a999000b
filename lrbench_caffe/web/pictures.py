"""Pictures for papers and talks: the figures that the command ``plot`` draws, as PNG and SVG."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from lrbench_caffe.plots.files import picture_bytes
from lrbench_caffe.web.errors import Refused

KINDS = {"png": "image/png", "svg": "image/svg+xml"}
PATIENCE = 10.0  # seconds that a picture waits for those before it

_drawing = threading.Lock()  # matplotlib's settings are the process's


def picture(form: str, name: str, draw: Callable[[], Any]) -> Response:
    """A picture, which the browser saves under a name.

    Args:
        form: its format, of ``KINDS``.
        draw: makes the figure.

    Raises:
        Refused: there is no such format, or others are drawn, and it would take too long.
    """
    if form not in KINDS:
        raise Refused(404, f"there is no picture {name}.{form}; known: {', '.join(KINDS)}")
    if not _drawing.acquire(timeout=PATIENCE):
        raise Refused(503, "other pictures are being drawn; try again later", wait=PATIENCE)
    try:
        content = picture_bytes(draw(), f".{form}")
    finally:
        _drawing.release()
    headers = {"Content-Disposition": f'inline; filename="{name}.{form}"'}
    return Response(content, headers=headers, media_type=KINDS[form])

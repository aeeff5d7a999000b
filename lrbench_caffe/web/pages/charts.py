"""The chart library, out of its Python package: browsers keep it."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import FileResponse

from lrbench_caffe.web.rendering import CHARTS

router = APIRouter()


@router.get("/plotly.js")
async def plotly_js() -> FileResponse:
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return FileResponse(CHARTS, headers=headers, media_type="text/javascript")

"""Whether the server lives, and whether it can answer."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

router = APIRouter(tags=["operation"])


@router.get("/health", summary="The process lives.")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/ready", summary="The database answers; 503 where it does not.")
def ready(request: Request) -> dict[str, str]:
    return {"status": "ok", "revision": request.app.state.database.revision()}

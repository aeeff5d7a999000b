"""Runs the application in uvicorn: one process or several, which end gracefully."""

from __future__ import annotations

import uvicorn

from lrbench_caffe.database.store import Database
from lrbench_caffe.web.settings import WebSettings

GRACE = 10  # seconds that requests have to end when the server stops
# Seconds after which a process that says nothing is replaced. It says nothing while it loads its
# modules, which takes long beside trainings; with uvicorn's own 5 seconds it might never be done.
SILENT = 120
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "plain": {"format": "%(message)s"},
        "named": {"format": "%(levelname)s: %(message)s"},
    },
    "handlers": {
        "out": {
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stdout",
            "formatter": "plain",
        },
        "err": {"class": "logging.StreamHandler", "formatter": "named"},
    },
    "loggers": {
        "uvicorn": {"handlers": ["err"], "level": "INFO", "propagate": False},
        "lrbench_caffe.web": {"handlers": ["err"], "level": "INFO", "propagate": False},
        "lrbench_caffe.web.access": {"handlers": ["out"], "level": "INFO", "propagate": False},
    },
}


def serve(settings: WebSettings, host: str, port: int, workers: int) -> int:
    """Serve until a signal ends it. Returns the exit code.

    Raises:
        InputError, DatabaseError: the database cannot be opened.
    """
    Database.open(
        settings.db
    ).close()  # makes and upgrades it once, before several processes use it
    settings.to_environment()
    uvicorn.run(
        "lrbench_caffe.web.app:app_of_environment",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        log_config=LOGGING,
        access_log=False,
        proxy_headers=True,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        timeout_worker_healthcheck=SILENT,
    )
    return 0

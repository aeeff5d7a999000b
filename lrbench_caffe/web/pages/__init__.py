"""The pages: one module for each kind, rendered on the server."""

from lrbench_caffe.web.pages import (
    about,
    account,
    charts,
    live,
    paper,
    playground,
    runs,
    tasks,
    tunings,
)

PAGES = (
    tasks.router,
    runs.router,
    live.router,
    tunings.router,
    paper.router,
    playground.router,
    account.router,
    about.router,
    charts.router,
)

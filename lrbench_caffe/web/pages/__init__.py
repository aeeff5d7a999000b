"""The pages: one module for each kind, rendered on the server."""

from lrbench_caffe.web.pages import (
    about,
    account,
    charts,
    live,
    paper,
    playground,
    recommend,
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
    recommend.router,
    account.router,
    about.router,
    charts.router,
)

"""The pages: one module for each kind, rendered on the server."""

from lrbench_caffe.web.pages import about, account, charts, live, playground, runs, tasks

PAGES = (
    tasks.router,
    runs.router,
    live.router,
    playground.router,
    account.router,
    about.router,
    charts.router,
)

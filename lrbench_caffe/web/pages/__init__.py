"""The pages: one module for each kind, rendered on the server."""

from lrbench_caffe.web.pages import about, charts, playground, runs, tasks

PAGES = (tasks.router, runs.router, playground.router, about.router, charts.router)

"""The web server: the LR database as pages, as an API, and as a place to share runs."""

"""Solvers and nets before Caffe sees them: read, checked with errors for people, and patched for a run."""

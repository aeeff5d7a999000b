"""The terminal interface: the command line, tables, progress."""

"""What a person types and sees: the command line, tables, progress."""

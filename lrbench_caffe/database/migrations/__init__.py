"""The steps that bring a database to the present tables, one file for each revision."""

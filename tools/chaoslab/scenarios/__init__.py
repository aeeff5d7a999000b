"""One module for each family of scenarios."""

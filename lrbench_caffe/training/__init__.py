"""One training: what is due when, the loop, what is measured, what is written, and how it continues later."""

"""The revisions. A released one is never changed: it says what databases out there look like."""

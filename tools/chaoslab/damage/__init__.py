"""Damage to inputs, which a random generator decides: ``files`` of any kind, ``prototxts``."""

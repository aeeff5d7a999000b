"""Damage to inputs, which a random generator decides: ``files`` of any kind, ``prototxts``, ``texts``
(logs of Caffe and exports) and ``sqlite_files``."""

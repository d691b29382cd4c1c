"""Beside ``soft_clip.py``, which imports it: part of the code that a run is known by."""


def bounded(norms, strength):
    return strength / (strength + norms)

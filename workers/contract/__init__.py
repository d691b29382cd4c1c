"""What depthsweep relies on in a user's own code, as tests to be run on it.

    pytest --depthsweep-plugin mine.py

runs those of every kind that the file brings, and no other tests unless some are named. Options
that have no default are given with ``--depthsweep-options '{"soft_clip": {"strength": 2}}'``, rows
that an objective can read with ``--depthsweep-rows rows.jsonl``.
"""

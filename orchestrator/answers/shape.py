"""How an answer's shape is declared: a typed dictionary, and the JSON Schema that follows from it.

A *closed* one has the keys it declares and no other. A *row* has these and, beside them, one for
each setting that a sweep varies, under the name that sweep files use.
"""

from __future__ import annotations

from pydantic import ConfigDict

CLOSED = ConfigDict(extra="forbid", use_attribute_docstrings=True)
ROW = ConfigDict(extra="allow", use_attribute_docstrings=True)

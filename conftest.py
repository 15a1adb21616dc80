"""The Python blocks of the documents are tests. `<!-- skip: next if(...) -->` before one says what it needs."""

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

_PARSERS = [PythonCodeBlockParser(), SkipParser()]

pytest_collect_file = Sybil(parsers=_PARSERS, patterns=["README.md", "docs/*.md", "docs/tutorials/*.md"]).pytest()

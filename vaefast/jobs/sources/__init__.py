"""Where the inputs of a run come from: rows by their number, never all of them at once."""

from vaefast.jobs.sources.opening import open_source
from vaefast.jobs.sources.rows import Rows, RowSource, Source, rows_digest

__all__ = ["RowSource", "Rows", "Source", "open_source", "rows_digest"]

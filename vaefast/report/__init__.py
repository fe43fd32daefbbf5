"""The report of an audit: one page, a table of results and a summary, in a folder."""

from vaefast.report.findings import findings
from vaefast.report.folder import new_file, new_folder
from vaefast.report.summary import describe_model, write_report

__all__ = ["describe_model", "findings", "new_file", "new_folder", "write_report"]

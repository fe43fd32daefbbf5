"""The robustness audit and its report."""

from vaefast.report.findings import findings
from vaefast.report.folder import new_file, new_folder
from vaefast.report.pipeline import Audit, audit
from vaefast.report.progress import Stages, Timing
from vaefast.report.settings import AuditSettings
from vaefast.report.summary import describe_model, write_report

__all__ = [
    "Audit",
    "AuditSettings",
    "Stages",
    "Timing",
    "audit",
    "describe_model",
    "findings",
    "new_file",
    "new_folder",
    "write_report",
]

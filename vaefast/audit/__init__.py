"""The robustness audit: attack, defend, measure, certify and compare, into a table of results."""

from vaefast.audit.progress import Stages, Timing
from vaefast.audit.run import Audit, run
from vaefast.audit.settings import AuditSettings

__all__ = ["Audit", "AuditSettings", "Stages", "Timing", "run"]

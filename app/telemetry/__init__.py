"""What the service tells of itself: metrics, logs, Server-Timing and traces."""

from app.telemetry.logs import configure_logs
from app.telemetry.metrics import Metrics
from app.telemetry.timings import Timings
from app.telemetry.trace import note

__all__ = ["Metrics", "Timings", "configure_logs", "note"]

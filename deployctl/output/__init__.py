"""What people and programs see of a run: live, plain and JSON lines, observers of the same events.

Owns every word and picture on standard output and standard error; refuses to know how a release works.
"""

from deployctl.output.reporter import Reporter, make_reporter
from deployctl.output.stream import detach_broken_stdout, fill_closed_streams, printable
from deployctl.output.summary import Summary, summarize

__all__ = [
    "Reporter",
    "Summary",
    "detach_broken_stdout",
    "fill_closed_streams",
    "make_reporter",
    "printable",
    "summarize",
]

"""Reports: why an inference takes the cycles that it takes.

events.py   the simulator's trace, joined with the code again
flow.py     who waits for whom: the critical path, and how long rows are needed
costs.py    costs by op, source line, instruction and unit
origins.py  the op and the source line that an instruction comes from
report.py   Report, the public API; terminal.py, page.py, chrome.py and timeline.py show it
"""

from ltc_compiler.report.chrome import chrome_trace
from ltc_compiler.report.report import Report, Walk
from ltc_compiler.report.timeline import draw_timeline

__all__ = ["Report", "Walk", "chrome_trace", "draw_timeline"]

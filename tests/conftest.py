"""What every test shares: the build of the C++ core that LTC_CORE names, and random tests that draw the same examples
every time, so that a change is to blame for a failure; `pytest --hypothesis-profile default` draws others.
"""

import chosen_core  # noqa: F401
from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.load_profile("same")

"""What every test shares: the build of the C++ core that LTC_CORE names, and random tests that draw the same examples
every time, so that a change is to blame for a failure; `pytest --hypothesis-profile default` draws others.
"""

import chosen_core  # noqa: F401
from hypothesis import Phase, settings

settings.register_profile("same", derandomize=True)
# For who asks only whether a test fails (tests/proof/mutate_core.py): no search for a smaller example.
settings.register_profile("whether", derandomize=True, phases=(Phase.explicit, Phase.generate))
settings.load_profile("same")

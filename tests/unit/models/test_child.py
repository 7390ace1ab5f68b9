"""Children that work on models: what they say, how they end, and whom they let go first."""

import os
import subprocess
import sys

from freehold.models.child import below


def test_heavy_work_runs_below_everything_else() -> None:
    code = "import os; print(os.nice(0))"
    ran = subprocess.run(
        below([sys.executable, "-c", code]), capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) == min(19, os.nice(0) + 10)

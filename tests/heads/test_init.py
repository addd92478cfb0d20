"""What importing the heads costs."""

import os
import subprocess
import sys
from pathlib import Path


def test_heads_import_without_torch() -> None:
    code = "import sys, bottleneck.heads; raise SystemExit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_scikit_learns_array_api_checks_pass() -> None:
    script = Path(__file__).with_name("array_api.py")
    environment = os.environ | {"SCIPY_ARRAY_API": "1"}

    ran = subprocess.run([sys.executable, str(script)], env=environment, check=True, capture_output=True, text=True)

    assert int(ran.stdout) >= 3

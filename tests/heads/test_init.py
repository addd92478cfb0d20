"""What importing the heads costs."""

import subprocess
import sys


def test_heads_import_without_torch() -> None:
    code = "import sys, bottleneck.heads; raise SystemExit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

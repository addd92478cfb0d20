#!/bin/sh
# Make .venv with everything the tests need and run them; arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
. tests/environment.sh
install_into .venv -e '.[test]'
.venv/bin/python -m pytest -m "not slow and not network and not browser" "$@"

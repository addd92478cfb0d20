#!/bin/sh
# From a fresh checkout to a first classifier: makes .venv, installs the package, runs the demo.
set -eu
cd "$(dirname "$0")/.."
. tests/environment.sh
install_into .venv .
.venv/bin/bottleneck demo "$@"

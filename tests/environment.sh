# Sourced by the scripts that need an environment of their own (examples/quickstart.sh, tests/run.sh, .ci/run).

# Print the first Python of at least 3.11 on the PATH.
find_python() {
    for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "No Python of at least 3.11 found. Install one, or name it: PYTHON=/path/to/python3 sh $0" >&2
    exit 1
}

# install_into FOLDER WHAT...: make the environment unless it is there, and install with the tested versions.
install_into() {
    environment=$1
    shift
    if [ ! -x "$environment/bin/python" ]; then
        python=$(find_python)
        echo "Making the environment $environment with $($python --version) ..."
        "$python" -m venv "$environment"
    fi
    # torch first: a torchvision asked for alone could bring another torch.
    "$environment/bin/pip" install --quiet --disable-pip-version-check -c tests/constraints.txt torch
    "$environment/bin/pip" install --quiet --disable-pip-version-check -c tests/constraints.txt "$@"
}

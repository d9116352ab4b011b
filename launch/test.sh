#!/usr/bin/env bash
# Installs the test extras and runs linters, type checker and tests on an emulated 8-device CPU mesh.
#
#   ./launch/test.sh                    everything
#   ./launch/test.sh tests/data -x      arguments go to pytest; linters are left out
#
# On Python 3.11 the small CPU build of torch is installed, too: it is the oracle of the parity tests.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv-test}
source launch/environment.sh

extras="test,plan,lint"
if "$(find_python)" -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then
  extras="$extras,parity"
fi
install_package ".[$extras]"

if [ $# -eq 0 ]; then
  "$VENV/bin/ruff" check .
  "$VENV/bin/ruff" format --check .
  "$VENV/bin/mypy"
fi
export JAX_PLATFORMS=cpu XLA_FLAGS="--xla_force_host_platform_device_count=8 ${XLA_FLAGS:-}"
exec "$VENV/bin/python" -m pytest -n 2 --dist loadgroup --no-loadscope-reorder "$@"

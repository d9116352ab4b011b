# shellcheck shell=bash
# Sourced by the other scripts: finds Python, makes the virtual environment, installs the package into it.

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "no Python 3.11 or newer found; install one or name it: PYTHON=/path/to/python $0" >&2
  return 1
}

VENV=${VENV:-.venv}

# install_package TARGET: installs `TARGET` (".", ".[test]" ...) unless setup.py has not changed since it was installed.
install_package() {
  local stamp
  [ -x "$VENV/bin/python" ] || "$(find_python)" -m venv "$VENV"
  stamp="$VENV/installed-$(echo "$1" | tr -c 'a-z\n' '_')"
  if [ ! -e "$stamp" ] || [ setup.py -nt "$stamp" ]; then
    echo "installing $1 into $VENV ..." >&2
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$1"
    touch "$stamp"
  fi
}

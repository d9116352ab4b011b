#!/usr/bin/env bash
# From raw text to a Hugging Face model: makes a virtual environment, installs the package, runs configs/quickstart.py.
#
#   ./launch/quickstart.sh                                  the embedded sample
#   ./launch/quickstart.sh --config.corpus.path=DIR         your own .jsonl, .parquet or .txt files
#   ./launch/quickstart.sh --workdir=DIR                    another run directory (default runs/quickstart)
#
# PYTHON names the interpreter (default python3.11 or newer python3), VENV the environment (default .venv).
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh

install_package "."
exec "$VENV/bin/seallm" run --config=configs/quickstart.py "$@"

# What the scripts of this folder share; sourced, from the repository's root on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
step() { printf '\n== %s (%ss)\n' "$*" "$SECONDS"; }

install_system_packages() { # on a machine that has nothing but Debian's Python and its package sources
  command -v apt-get >/dev/null || return 0
  local as_root= need=()
  [ "$(id -u)" = 0 ] || as_root="sudo -n"
  command -v g++ >/dev/null || need+=(g++)
  python3 -c 'import ensurepip, venv' 2>/dev/null || need+=(python3-venv)
  [ -d /usr/share/datasets/fashion-mnist ] || need+=(dataset-fashion-mnist) # real images for the demo's test
  [ ${#need[@]} -gt 0 ] || return 0
  $as_root apt-get update -q
  $as_root apt-get install -y -q --no-install-recommends "${need[@]}"
}

requirements() { # VENV OPTIONS...: what pyproject.toml requires, a line each
  "$1/bin/pip" install -q packaging tomli
  "$1/bin/python" .ci/requirements.py "${@:2}"
}

export SKBUILD_CMAKE_DEFINE="SAAL_FAST_WERROR=ON" # our own C++ compiles without a warning
# Two processes of tests, each a file at a time, with a thread each: quicker than one with two threads.
export PYTEST_ADDOPTS="${PYTEST_ADDOPTS:--n 2 --dist loadfile}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

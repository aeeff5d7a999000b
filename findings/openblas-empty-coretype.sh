#!/bin/sh
# OpenBLAS (0.3.23.dev, in the wheel of numpy 1.26.4) takes an empty OPENBLAS_CORETYPE, as a Compose file or a CI
# matrix passes on a variable that is not set, for the name of kernels that it does not have. It then has the same ones
# as with a nonsensical name, and not those that it chooses for the CPU by itself: on an AMD Zen 3 Haswell's instead of
# Zen's; 0.3.13, which Debian 11's Caffe uses, has Prescott's of 2004 there. Only OPENBLAS_VERBOSE tells.
set -eu
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
cd "$FOLDER"
"${PYTHON:-python3}" -m venv env  # numpy 1.26.4 has wheels for Python 3.9 to 3.12
env/bin/pip install --quiet --disable-pip-version-check --only-binary :all: numpy==1.26.4

said() {
    OPENBLAS_VERBOSE=2 env/bin/python -c "import numpy" 2>&1
}

unset OPENBLAS_CORETYPE
not_set=$(said)
echo "not set:     $not_set"
export OPENBLAS_CORETYPE=
empty=$(said)
export OPENBLAS_CORETYPE=nonsense
nonsense=$(said)
echo "empty:       $empty" | tr '\n' ' '
echo
echo "nonsense:    $nonsense" | tr '\n' ' '
echo

case $not_set in *"not found"*) echo "changed: kernels are not found where none are named" && exit 1 ;; esac
case $empty in *"Core not found: "*) ;; *) echo "changed: an empty name is as none" && exit 1 ;; esac
if [ "${empty##*Core: }" != "${nonsense##*Core: }" ]; then
    echo "changed: an empty name has kernels of its own"
    exit 1
fi

#!/bin/sh
# In the root, which has python3 and python3-venv and no network: from our wheel to a servo, as a newcomer would go.
# Fails if there is a compiler, or if the emulator works more than LIMIT (120) seconds for it. That is processor time of
# all that runs here, about what passes on a quiet machine: on a busy one more passes.
set -eu
wheels=/srv/wheelhouse venv=/srv/venv
start=$(date +%s)
used() { cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) //' | awk '{ ticks += $12 + $13 + $14 + $15 } END { print int(ticks / 100) }'; }
before=$(used)
worked() { echo $(($(used) - before)); }
tell() { echo "[$(($(date +%s) - start)) s, worked $(worked) s] $*"; }

tell "$(uname -m), Debian $(cat /etc/debian_version), $(python3 --version)"
if command -v cc gcc c99 clang tcc g++ make swig; then
    echo "these compile" >&2
    exit 1
fi
# Debian's pyzmq, where the root has it since PyPI has no wheel
packages=$(python3 -c 'import zmq' 2>/dev/null && echo --system-site-packages) || true
tell "no compiler; python3 -m venv $packages $venv"
python3 -m venv $packages "$venv"
tell "pip install --no-index --find-links $wheels taskengine-robot[hardware]"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-index --find-links "$wheels" 'taskengine-robot[hardware]'
"$venv/bin/python" -c '
from importlib.metadata import distributions
print("    " + ", ".join(sorted(f"{found.name} {found.version}" for found in distributions())))'

mkdir /srv/robot
cd /srv/robot
cat >taskengine.toml <<SETTINGS
[hardware.devices.pan]
type = "AngularServo"
pin = 18
SETTINGS
tell "taskengine serve --pins mock"
"$venv/bin/taskengine" serve --pins mock >log 2>&1 &
engine=$!
answered=no
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    if "$venv/bin/taskengine" call servo.set pan -k angle=30; then
        answered=yes
        break
    fi
    sleep 1
done
took=$(worked)
tell "servo.set answered: $answered"
"$venv/bin/taskengine" call task_count 2 3
kill -TERM "$engine"
wait "$engine" || { cat log; exit 1; }
tell "the engine has ended; it printed:"
sed 's/^/    /' log
if [ "$answered" = no ]; then exit 1; fi
echo "from the wheel to the servo the emulator worked $took s, and may ${LIMIT:=120} s"
[ "$took" -le "$LIMIT" ]

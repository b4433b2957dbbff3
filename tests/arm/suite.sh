#!/bin/sh
# In the root: install the wheel, serve, call and move a servo, then run pytest with the words given, on what is installed.
set -eu
LIMIT=${LIMIT:-3600} sh /srv/repository/tests/arm/first_servo.sh
site=$(echo /srv/venv/lib/python3*/site-packages)
echo /srv/tools/site-packages >"$site/tools.pth"
# the sources have no compiled modules; and a test that looks for them finds the wheel's
mount --bind "$site/taskengine" /srv/repository/taskengine
mount --bind "$site/taskengine_hardware" /srv/repository/hardware
cd /srv/repository
export EMULATED_BY_QEMU=1 TASKENGINE_TEST_TIME_FACTOR="${TASKENGINE_TEST_TIME_FACTOR:-10}"
exec /srv/venv/bin/python -m pytest -p no:cacheprovider -o faulthandler_timeout=600 "$@"

# Task Engine in a container, for x86-64 and arm64: docs/docker.md says how to use it.
#
#     docker build -t taskengine .
#
# The first stage makes wheels, and needs a compiler. The second has Python, the installed wheels and nothing else.
# Debian 12, because lgpio has wheels for its Python 3.11 and none for the 3.13 of Debian 13.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
# the extras of pyproject.toml that tasks need, such as EXTRAS=hardware,numpy
ARG EXTRAS=hardware
COPY LICENSE README.md pyproject.toml setup.py /source/
COPY taskengine /source/taskengine
COPY hardware /source/hardware
RUN python3 -m venv /build \
    && /build/bin/pip wheel --quiet --wheel-dir /wheels "/source[${EXTRAS}]" \
    && python3 -m venv --without-pip /opt/taskengine \
    && /build/bin/pip --python /opt/taskengine/bin/python install --quiet --no-index --no-deps /wheels/*.whl

FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin \
    && useradd --system --uid 990 --create-home --home-dir /var/lib/taskengine --shell /usr/sbin/nologin taskengine \
    && install --directory --owner taskengine --mode 0700 /var/lib/taskengine/.config/taskengine
COPY --from=build /opt/taskengine /opt/taskengine
ENV PATH=/opt/taskengine/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# the settings file and the task files of the robot are mounted here; what is mounted is never written to
WORKDIR /robot
# keys and the audit log are in its home folder
VOLUME /var/lib/taskengine
USER taskengine
ENTRYPOINT ["taskengine"]
CMD ["serve"]

# LRBench on the CPU: Debian 11 with its own package of BVLC Caffe.
#
#   docker build -t lrbench-caffe .
#   docker run -v "$PWD/work:/workspace" lrbench-caffe python -m lrbench_caffe.doctor

# uv comes as a program without dependencies, from an image that has a pip for it.
FROM python:3.11-slim AS uv
RUN pip install --no-cache-dir uv==0.13.9

# Debian 11 is the last Debian that carries Caffe.
FROM debian:bullseye-slim

# Another mirror, for the day when Debian 11 has moved to the archive.
ARG MIRROR=
RUN if [ -n "$MIRROR" ]; then echo "deb $MIRROR bullseye main" > /etc/apt/sources.list; fi

# Debian's security updates and point releases replace versions: pinned ones would soon be gone.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends python3-caffe caffe libopenblas0-pthread && \
    rm -rf /var/lib/apt/lists/*

COPY --from=uv /usr/local/bin/uv /usr/local/bin/uv
ENV UV_PYTHON_INSTALL_DIR=/opt/python \
    UV_NO_CACHE=1 \
    UV_LINK_MODE=copy
RUN uv venv --python 3.11 --managed-python /opt/venv

COPY tools/docker/requirements.txt /tmp/requirements.txt
RUN uv pip install --python /opt/venv --require-hashes --only-binary :all: -r /tmp/requirements.txt

WORKDIR /opt/lrbench_caffe
COPY . .
# The project's own files as they lie here; the links lead into the volume.
RUN echo /opt/lrbench_caffe > "$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lrbench_caffe.pth" && \
    ln -s /workspace/data data && ln -s /workspace/runs runs && ln -s /workspace/snapshots snapshots && \
    mkdir -p /workspace && chmod 777 /workspace

ENV PATH=/opt/venv/bin:$PATH \
    LRBENCH_CAFFE_PYTHON=/usr/bin/python3 \
    LRBENCH_DB=/workspace/lr.sqlite \
    XDG_CACHE_HOME=/workspace/.cache

VOLUME /workspace
ENTRYPOINT ["/opt/lrbench_caffe/tools/docker/entrypoint"]
CMD ["python", "-m", "lrbench_caffe.doctor"]

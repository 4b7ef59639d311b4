# Two stages: what is needed to install stays behind.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/pixelmill
COPY requirements.lock ./
# No libvips of the system may be found: the wheel brings its own.
RUN PKG_CONFIG_LIBDIR=/nonexistent /opt/pixelmill/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY app app
COPY routers routers
COPY transforms transforms
RUN /opt/pixelmill/bin/pip install --no-cache-dir --no-deps . \
    && /opt/pixelmill/bin/python -c 'from transforms import libvips; libvips.require_supported_version()'

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="pixelmill" \
      org.opencontainers.image.description="An image-transformation service"
# A search that fails for the library below fails the build.
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The system's malloc keeps the memory of long-lived threads; jemalloc gives it back.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends fontconfig fonts-dejavu-core libjemalloc2 \
    && rm -rf /var/lib/apt/lists/* \
    && ln -s "$(find /usr/lib -name libjemalloc.so.2 | head -n 1)" /usr/local/lib/libjemalloc.so.2 \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin pixelmill \
    && install -d -o pixelmill -g pixelmill /data
COPY --from=build /opt/pixelmill /opt/pixelmill
ENV PATH=/opt/pixelmill/bin:$PATH \
    LD_PRELOAD=/usr/local/lib/libjemalloc.so.2 \
    MALLOC_CONF=background_thread:true,dirty_decay_ms:5000,narenas:2 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIXELMILL_HOST=0.0.0.0
USER 10001
# The defaults of the stores and of the database lie in ./data. Whoever mounts an empty folder there
# has the one of originals made, as elsewhere: no other folder of originals is.
WORKDIR /
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["pixelmill", "health"]
CMD ["pixelmill", "serve"]

# The Gateway service, with only the packages of its extra.
#   docker build -f deploy/containers/gateway.Dockerfile -t imagesearch/gateway .
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON} AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE* ./
COPY clients/python clients/python
COPY services services
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM ${PYTHON} AS install
COPY --from=wheel /wheel /wheel
COPY deploy/constraints.txt /constraints.txt
# Installed by path, because a package index may have another distribution of this name.
RUN python -m venv /opt/imagesearch \
    && /opt/imagesearch/bin/pip install --no-cache-dir --only-binary=:all: --constraint /constraints.txt \
        "$(echo /wheel/*.whl)[gateway]" \
    && /opt/imagesearch/bin/pip uninstall --yes pip setuptools

FROM ${PYTHON}
LABEL org.opencontainers.image.title="imagesearch gateway" \
      org.opencontainers.image.description="The public contract of image search: validation, add, search, score calibration" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=install /opt/imagesearch /opt/imagesearch
ENV PATH=/opt/imagesearch/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    IMAGESEARCH_GATEWAY_HOST=0.0.0.0 \
    IMAGESEARCH_GATEWAY_PORT=50051 \
    IMAGESEARCH_GATEWAY_METRICS_PORT=9464
USER 10001:10001
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["python", "-m", "imagesearch_services.common.probe", "127.0.0.1:50051"]
ENTRYPOINT ["python", "-m", "imagesearch_services.gateway"]

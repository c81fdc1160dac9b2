# The Catalog service, with only the packages of its extra.
#   docker build -f deploy/containers/catalog.Dockerfile -t imagesearch/catalog .
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
        "$(echo /wheel/*.whl)[catalog]" \
    && /opt/imagesearch/bin/pip uninstall --yes pip setuptools

FROM ${PYTHON}
LABEL org.opencontainers.image.title="imagesearch catalog" \
      org.opencontainers.image.description="Stores libraries and their entries in Qdrant, embedded or as a server" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=install /opt/imagesearch /opt/imagesearch
# A new volume inherits this owner, the user below.
RUN install --directory --owner=10001 --group=10001 /var/lib/imagesearch
ENV PATH=/opt/imagesearch/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    IMAGESEARCH_CATALOG_HOST=0.0.0.0 \
    IMAGESEARCH_CATALOG_PORT=50053 \
    IMAGESEARCH_CATALOG_METRICS_PORT=9464 \
    IMAGESEARCH_CATALOG_DATA_DIR=/var/lib/imagesearch
USER 10001:10001
EXPOSE 50053 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["python", "-m", "imagesearch_services.common.probe", "127.0.0.1:50053"]
ENTRYPOINT ["python", "-m", "imagesearch_services.catalog"]

# The Embedding service, with only the packages of its extra.
#   docker build -f deploy/containers/embedding.Dockerfile -t imagesearch/embedding .
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
        "$(echo /wheel/*.whl)[embedding]" \
    && /opt/imagesearch/bin/pip uninstall --yes pip setuptools

FROM ${PYTHON}
LABEL org.opencontainers.image.title="imagesearch embedding" \
      org.opencontainers.image.description="Decodes pictures and computes their embeddings with Triton; stateless" \
      org.opencontainers.image.licenses="Apache-2.0"
# Fonts for the scripts that texts in drawings may use.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        fonts-noto-cjk=1:20220127+repack1-1 \
        fonts-noto-color-emoji=2.042-0+deb12u1 \
        fonts-noto-core=20201225-1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=install /opt/imagesearch /opt/imagesearch
ENV PATH=/opt/imagesearch/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    IMAGESEARCH_EMBEDDING_HOST=0.0.0.0 \
    IMAGESEARCH_EMBEDDING_PORT=50052 \
    IMAGESEARCH_EMBEDDING_METRICS_PORT=9464
USER 10001:10001
EXPOSE 50052 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["python", "-m", "imagesearch_services.common.probe", "127.0.0.1:50052"]
ENTRYPOINT ["python", "-m", "imagesearch_services.embedding"]

# Fills a volume with the model repository that Triton serves: the job before everything else.
#   docker build -f deploy/containers/models.Dockerfile -t imagesearch/models .
# It needs a package index at run time, since weights that may not be redistributed are in no image:
# the manifest pins them by hash. It holds only what this repository itself holds.
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON}
LABEL org.opencontainers.image.title="imagesearch models" \
      org.opencontainers.image.description="Prepares the models from the pinned manifest into a volume" \
      org.opencontainers.image.licenses="Apache-2.0"
# Standard library and pip are all that preparing takes.
WORKDIR /opt/imagesearch
COPY services/__init__.py imagesearch_services/
COPY services/models/*.py imagesearch_services/models/
COPY deploy/models.toml deploy/
COPY deploy/triton deploy/triton
RUN install --directory --owner=10001 --group=10001 /models
ENV HOME=/tmp \
    PYTHONPATH=/opt/imagesearch \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    IMAGESEARCH_DEPLOY_DIR=/opt/imagesearch/deploy \
    IMAGESEARCH_MODELS_DIR=/models
USER 10001:10001
STOPSIGNAL SIGTERM
# It runs once and ends: there is nothing to ask.
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "imagesearch_services.models"]
CMD ["prepare", "--repository-only"]

# Fills a volume with the model repository of Triton; runs before the other services.
#   docker build -f deploy/containers/models.Dockerfile -t imagesearch/models .
# It needs a package index at run time: weights that may not be redistributed are not in the image;
# the manifest pins them by hash. The image contains only files of this repository.
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON}
LABEL org.opencontainers.image.title="imagesearch models" \
      org.opencontainers.image.description="Prepares the models from the pinned manifest into a volume" \
      org.opencontainers.image.licenses="Apache-2.0"
# Preparation needs only the standard library and pip.
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
# The container runs once and exits.
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "imagesearch_services.models"]
CMD ["prepare", "--repository-only"]

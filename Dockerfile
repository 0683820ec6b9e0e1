# The image that `autotune schedule --emit k8s` names: docker build -t autotune:latest .
FROM python:3.11-slim

RUN useradd --uid 10001 --create-home autotune
WORKDIR /opt/autotune
COPY requirements.lock pyproject.toml README.md LICENSE NOTICE ./
RUN pip install --no-cache-dir -r requirements.lock
COPY costmodel ./costmodel
COPY autotune ./autotune
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

# by number, so that Kubernetes can tell that it is not root
USER 10001
WORKDIR /data
ENTRYPOINT ["autotune"]

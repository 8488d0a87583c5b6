# `luce serve` as a user without rights. Runs are mounted, not copied: see compose.yaml.
#   docker build -t luce .
#   docker run --rm --read-only --tmpfs /tmp -p 127.0.0.1:8000:8000 -v "$PWD/runs:/runs:ro" luce /runs/digits
FROM python:3.13-slim AS build

WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
# PyTorch for the CPU alone is a tenth of the size; give PIP_EXTRA_INDEX_URL to find it where you are.
ARG PIP_EXTRA_INDEX_URL=
RUN python -m venv /opt/luce \
    && /opt/luce/bin/pip install --no-cache-dir --constraint constraints.txt '.[serve]'

FROM python:3.13-slim

RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin luce
COPY --from=build /opt/luce /opt/luce
ENV PATH=/opt/luce/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/tmp/numba
USER 10001:10001
WORKDIR /
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["luce", "serve", "--host", "0.0.0.0", "--port", "8000"]

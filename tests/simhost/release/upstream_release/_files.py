# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The other files in a release's folder ``docker``: what nginx, the proxy and the sandbox read."""

from __future__ import annotations

from upstream_release._settings import SANDBOX_KEY

NGINX_ENTRYPOINT = """\
#!/bin/bash
# Writes nginx's configuration from the templates beside it, then starts nginx.
set -e
HTTPS_CONFIG=''
if [ "${NGINX_HTTPS_ENABLED}" = "true" ]; then
    export SSL_CERTIFICATE_PATH="/etc/ssl/${NGINX_SSL_CERT_FILENAME}"
    export SSL_CERTIFICATE_KEY_PATH="/etc/ssl/${NGINX_SSL_CERT_KEY_FILENAME}"
    HTTPS_CONFIG=$(envsubst < /etc/nginx/https.conf.template)
fi
export HTTPS_CONFIG
names=$(printenv | cut -d= -f1 | sed 's/^/$/' | paste -sd, -)
envsubst "$names" < /etc/nginx/nginx.conf.template > /etc/nginx/nginx.conf
envsubst "$names" < /etc/nginx/proxy.conf.template > /etc/nginx/proxy.conf
envsubst "$names" < /etc/nginx/conf.d/default.conf.template > /etc/nginx/conf.d/default.conf
exec nginx -g 'daemon off;'
"""
NGINX_CONF = """\
user www-data;
worker_processes ${NGINX_WORKER_PROCESSES};
error_log /dev/stderr notice;
pid /run/nginx.pid;
events { worker_connections 512; }
http {
    include /etc/nginx/mime.types;
    access_log off;
    keepalive_timeout ${NGINX_KEEPALIVE_TIMEOUT};
    client_max_body_size ${NGINX_CLIENT_MAX_BODY_SIZE};
    include /etc/nginx/conf.d/*.conf;
}
"""
PROXY_CONF = """\
proxy_set_header Host $host;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_http_version 1.1;
proxy_set_header Connection "";
proxy_buffering off;
proxy_read_timeout ${NGINX_PROXY_READ_TIMEOUT};
proxy_send_timeout ${NGINX_PROXY_SEND_TIMEOUT};
"""
HTTPS_CONF = """\
listen ${NGINX_SSL_PORT} ssl;
ssl_certificate ${SSL_CERTIFICATE_PATH};
ssl_certificate_key ${SSL_CERTIFICATE_KEY_PATH};
ssl_protocols ${NGINX_SSL_PROTOCOLS};
"""
# Addresses are looked up again, as containers may come back with others.
SITE_HEAD = """\
server {
    listen ${NGINX_PORT};
    server_name ${NGINX_SERVER_NAME};
    ${HTTPS_CONFIG}
    resolver 127.0.0.11 valid=2s;
"""
LOCATION = "    location {path} {{\n        set $up http://{target};\n        proxy_pass $up;\n        include proxy.conf;\n    }}\n"
LOCATIONS = {
    "/console/api": "api:5001", "/api": "api:5001", "/v1": "api:5001", "/files": "api:5001", "/mcp": "api:5001", "/triggers": "api:5001",
    "/explore": "web:3000", "/e/": "plugin_daemon:5002", "/": "web:3000",
}
SQUID_ENTRYPOINT = """\
#!/bin/bash
# Writes the proxy's configuration from its template, then starts it.
set -e
mkdir -p /etc/squid
envsubst '${HTTP_PORT} ${COREDUMP_DIR} ${REVERSE_PROXY_PORT} ${SANDBOX_HOST} ${SANDBOX_PORT}' \\
    < /etc/squid/squid.conf.template > /etc/squid/squid.conf
exec squid -f /etc/squid/squid.conf -NYC 1
"""
SQUID_CONF = """\
http_port ${HTTP_PORT}
acl private dst 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16
http_access deny private
http_access allow all
"""
SANDBOX_CONFIG = f"app:\n  port: 8194\n  debug: false\n  key: {SANDBOX_KEY}\nmax_workers: 4\nworker_timeout: 5\nenable_network: true\n"


def files(*, envs: bool) -> dict[str, tuple[str, int]]:
    """Return text and mode by the path below ``docker``."""
    locations = {**LOCATIONS, **({"/socket.io/": "api_websocket:5001"} if envs else {})}
    site = SITE_HEAD + "".join(LOCATION.format(path=path, target=target) for path, target in locations.items()) + "}\n"
    found = {
        "README.md": ("# docker\n\nA release in upstream's shape, made for tests.\n", 0o644),
        "nginx/docker-entrypoint.sh": (NGINX_ENTRYPOINT, 0o755),
        "nginx/nginx.conf.template": (NGINX_CONF, 0o644),
        "nginx/proxy.conf.template": (PROXY_CONF, 0o644),
        "nginx/https.conf.template": (HTTPS_CONF, 0o644),
        "nginx/conf.d/default.conf.template": (site, 0o644),
        "nginx/ssl/.gitkeep": ("", 0o644),
        "ssrf_proxy/docker-entrypoint.sh": (SQUID_ENTRYPOINT, 0o755),
        "ssrf_proxy/squid.conf.template": (SQUID_CONF, 0o644),
        # Without it the sandbox ends at its start.
        "volumes/sandbox/conf/config.yaml": (SANDBOX_CONFIG, 0o644),
        "volumes/sandbox/dependencies/python-requirements.txt": ("", 0o644),
    }
    if envs:
        found["ssrf_proxy/squid-agent.conf.template"] = (SQUID_CONF, 0o644)
    return found

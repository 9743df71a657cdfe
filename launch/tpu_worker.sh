#!/bin/bash
# What each host of a TPU does when it starts, also after maintenance: mount, install, train.
#
# The run is a service of systemd, which starts it again after exit code 75, and after the abort
# (SIGABRT) that jax makes when another host has gone. A spot host is told 30 s before it goes, of
# which the run has 25 to save. How it ended stands in /run/vitjax.exit.
set -euo pipefail
command -v mount.nfs > /dev/null || { apt-get update && apt-get install -y nfs-common; }
mkdir -p @{mount=/runs} /opt/vitjax
mountpoint --quiet @{mount=/runs} || mount -t nfs '@{nfs}' @{mount=/runs}
if [ ! -x /opt/vitjax/bin/vitjax ]; then
  curl -LsSf https://astral.sh/uv/install.sh | env UV_INSTALL_DIR=/usr/local/bin sh
  /usr/local/bin/uv venv --clear --python=3.12 /opt/vitjax
  /usr/local/bin/uv pip install --python=/opt/vitjax/bin/python '@{package=vitjax[tpu]}'
fi
cat > /opt/vitjax/run.sh << 'END_OF_RUN'
export PATH=/opt/vitjax/bin:$PATH
cd @{mount=/runs}
exec @{command}
END_OF_RUN
cat > /etc/systemd/system/vitjax.service << 'END_OF_UNIT'
[Unit]
Description=vitjax
[Service]
Environment=HOME=/root
ExecStart=/bin/bash /opt/vitjax/run.sh
ExecStopPost=/bin/sh -c 'echo $EXIT_STATUS > /run/vitjax.exit'
RestartForceExitStatus=75 SIGABRT
RestartSec=5
TimeoutStopSec=25
END_OF_UNIT
systemctl daemon-reload
systemctl start vitjax

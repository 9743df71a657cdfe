#!/bin/bash
# A run on one TPU VM, or on all hosts of a slice: creates it, trains, and watches until the end.
#
# Stop watching with Ctrl-C, and run this again to go on watching. A TPU that was taken away is
# created again, and the run goes on from its last checkpoint on 10.0.0.2:/runs. The TPU costs until it is
# deleted, which is said at the end.
set -euo pipefail
vm=(vitjax --zone=us-west4-a)
spot=no # yes: cheaper, and may be taken away at any time
worker=$(mktemp)
trap 'rm -f "$worker"' EXIT
cat > "$worker" << 'END_OF_WORKER'
#!/bin/bash
# What each host of a TPU does when it starts, also after maintenance: mount, install, train.
#
# The run is a service of systemd, which starts it again after exit code 75, and after the abort
# (SIGABRT) that jax makes when another host has gone. A spot host is told 30 s before it goes, of
# which the run has 25 to save. How it ended stands in /run/vitjax.exit.
set -euo pipefail
command -v mount.nfs > /dev/null || { apt-get update && apt-get install -y nfs-common; }
mkdir -p /runs /opt/vitjax
mountpoint --quiet /runs || mount -t nfs '10.0.0.2:/runs' /runs
if [ ! -x /opt/vitjax/bin/vitjax ]; then
  curl -LsSf https://astral.sh/uv/install.sh | env UV_INSTALL_DIR=/usr/local/bin sh
  /usr/local/bin/uv venv --clear --python=3.12 /opt/vitjax
  /usr/local/bin/uv pip install --python=/opt/vitjax/bin/python 'vitjax[tpu]'
fi
cat > /opt/vitjax/run.sh << 'END_OF_RUN'
export PATH=/opt/vitjax/bin:$PATH
cd /runs
exec vitjax train --config=digits --config.seed=3 '--config.data.image_size=(8, 8)' --workdir=/runs/digits
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
END_OF_WORKER

tpu() { gcloud compute tpus tpu-vm "$@"; }
create() {
  [ "$spot" = yes ] && set -- --spot
  tpu create "${vm[@]}" --accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite "$@" \
    --metadata-from-file=startup-script="$worker"
}
exit_code() { tpu ssh "${vm[@]}" --worker=0 --command='cat /run/vitjax.exit' 2> /dev/null; }

while true; do
  state=$(tpu describe "${vm[@]}" --format='value(state)' 2> /dev/null || echo none)
  code=
  case $state in
    none) create ;;
    PREEMPTED | TERMINATED) tpu delete "${vm[@]}" --quiet ;;
    READY) code=$(exit_code || true) ;;
  esac
  echo "$(date '+%F %T') $state${code:+, the run ended with $code}"
  case $code in
    '' | 75 | ABRT) sleep "${POLL:-60}" ;; # at work, or started again
    *) break ;;
  esac
done
tpu ssh "${vm[@]}" --worker=0 --command='sudo journalctl --unit=vitjax --lines=40 --output=cat'
echo "The TPU still costs. Delete it: gcloud compute tpus tpu-vm delete ${vm[*]}"
[ "$code" = 0 ]

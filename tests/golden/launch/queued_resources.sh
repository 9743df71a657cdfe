#!/bin/bash
# A run on a slice of TPUs that is waited for in Google's queue, and deleted when the run is done.
#
# Stop watching with Ctrl-C, and run this again to go on watching. A slice that was taken away is put
# into the queue again, and the run goes on from its last checkpoint on 10.0.0.2:/runs.
set -euo pipefail
request=(b16 --zone=us-central2-b)
spot=yes # no: dearer, and not taken away
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

queue() { gcloud compute tpus queued-resources "$@"; }
create() {
  [ "$spot" = yes ] && set -- --spot
  queue create "${request[@]}" --node-id=b16 --accelerator-type=v4-32 \
    --runtime-version=tpu-ubuntu2204-base "$@" --metadata-from-file=startup-script="$worker"
}
on_first() {
  gcloud compute tpus tpu-vm ssh "${request[@]}" --worker=0 --command="$1" 2> /dev/null
}

while true; do
  state=$(queue describe "${request[@]}" --format='value(state.state)' 2> /dev/null || echo none)
  code=
  case $state in
    none) create ;;
    SUSPENDED | FAILED) queue delete "${request[@]}" --force --quiet ;;
    ACTIVE) code=$(on_first 'cat /run/vitjax.exit' || true) ;;
  esac
  echo "$(date '+%F %T') $state${code:+, the run ended with $code}"
  case $code in
    '' | 75 | ABRT) sleep "${POLL:-60}" ;; # waiting, at work, or started again
    *) break ;;
  esac
done
on_first 'sudo journalctl --unit=vitjax --lines=40 --output=cat' || true
queue delete "${request[@]}" --force --quiet
[ "$code" = 0 ]

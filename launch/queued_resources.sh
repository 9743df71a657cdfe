#!/bin/bash
# A run on a slice of TPUs that is waited for in Google's queue, and deleted when the run is done.
#
# Stop watching with Ctrl-C, and run this again to go on watching. A slice that was taken away is put
# into the queue again, and the run goes on from its last checkpoint on @{nfs}.
set -euo pipefail
request=(@{name=vitjax} --zone=@{zone})
spot=@{spot=yes} # no: dearer, and not taken away
worker=$(mktemp)
trap 'rm -f "$worker"' EXIT
cat > "$worker" << 'END_OF_WORKER'
@{worker}
END_OF_WORKER

queue() { gcloud compute tpus queued-resources "$@"; }
create() {
  [ "$spot" = yes ] && set -- --spot
  queue create "${request[@]}" --node-id=@{name=vitjax} --accelerator-type=@{accelerator} \
    --runtime-version=@{runtime} "$@" --metadata-from-file=startup-script="$worker"
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

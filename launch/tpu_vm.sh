#!/bin/bash
# A run on one TPU VM, or on all hosts of a slice: creates it, trains, and watches until the end.
#
# Stop watching with Ctrl-C, and run this again to go on watching. A TPU that was taken away is
# created again, and the run goes on from its last checkpoint on @{nfs}. The TPU costs until it is
# deleted, which is said at the end.
set -euo pipefail
vm=(@{name=vitjax} --zone=@{zone})
spot=@{spot=no} # yes: cheaper, and may be taken away at any time
worker=$(mktemp)
trap 'rm -f "$worker"' EXIT
cat > "$worker" << 'END_OF_WORKER'
@{worker}
END_OF_WORKER

tpu() { gcloud compute tpus tpu-vm "$@"; }
create() {
  [ "$spot" = yes ] && set -- --spot
  tpu create "${vm[@]}" --accelerator-type=@{accelerator} --version=@{runtime} "$@" \
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

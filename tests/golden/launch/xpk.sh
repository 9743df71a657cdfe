#!/bin/bash
# A run on a TPU cluster that xpk made.
#
# xpk ends a workload at exit codes other than 42 and 127 to 255, so it is told that 75 means "start
# again". A pod that is told to go has 30 s to save, which is xpk's default.
set -eu
xpk workload create \
  --cluster=pods \
  --workload=vitjax \
  --tpu-type=v5litepod-16 \
  --num-slices=1 \
  --docker-image=me/vitjax:tpu \
  --restart-on-exit-codes=75 \
  --max-restarts=50 \
  --termination-grace-period-seconds=30 \
  --command='vitjax train --config=digits --config.seed=3 '"'"'--config.data.image_size=(8, 8)'"'"' --workdir=/runs/digits'

#!/bin/bash
# A run on a TPU cluster that xpk made.
#
# xpk ends a workload at exit codes other than 42 and 127 to 255, so it is told that 75 means "start
# again". A pod that is told to go has @{grace=30} s to save, which is xpk's default.
set -eu
xpk workload create \
  --cluster=@{cluster} \
  --project=@{project?} \
  --zone=@{zone?} \
  --workload=@{name=vitjax} \
  --tpu-type=@{accelerator} \
  --num-slices=@{slices=1} \
  --docker-image=@{image} \
  --storage=@{storage?} \
  --restart-on-exit-codes=75 \
  --max-restarts=@{restarts=20} \
  --termination-grace-period-seconds=@{grace=30} \
  --command=@{command_quoted}

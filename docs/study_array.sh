#!/usr/bin/env bash
# A study as an array of Slurm jobs, one shard each: sbatch --array=1-8 docs/study_array.sh my_study.yaml
# Submitted again, it goes on with what is missing. Asks for what one run needs; change it to your cluster's words.
#SBATCH --job-name=study
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -eu
config=$1
shift
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
# exec, so that Slurm's TERM, two minutes before the end, reaches the training, which writes a checkpoint
exec python main.py --phase study --config "$config" --shard "${SLURM_ARRAY_TASK_ID}/${SLURM_ARRAY_TASK_COUNT}" "$@"

# Runs the attacker under Docker's own default, in the namespaces that attacks.rs made: docker.sh ROOTFS_TAR FOLDER
set -euo pipefail
rootfs=$1 folder=$2
mount --make-rprivate /
mkdir -p "$folder"
dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" --host "unix://$folder/sock" --bridge=none \
	--iptables=false --ip6tables=false --ip-forward=false --cgroup-parent "/docker-test-$$" >"$folder/log" 2>&1 &
daemon=$!
trap 'kill "$daemon"; wait "$daemon" || true; find /sys/fs/cgroup -depth -type d -name "docker-test-$$" -exec rmdir {} +' EXIT
export DOCKER_HOST="unix://$folder/sock"
# Its log says when it listens.
# No pipe: the reader goes first, and its writer's end by SIGPIPE would be the script's.
timeout 30 grep -q -m1 "API listen on" < <(exec tail -n +1 -f "$folder/log" --pid "$daemon") || {
	cat "$folder/log" >&2
	exit 1
}
docker import "$rootfs" attacked:1 >/dev/null
docker run --rm --network none attacked:1 /attacker all

# Runs the scenario of the stock client against a real dockerd, in the namespaces that docker_client.rs made: docker_reference.sh SCRIPT ROOTFS_TAR FOLDER
set -euo pipefail
script=$1 rootfs=$2 folder=$3
mount --make-rprivate /
mkdir -p "$folder"
dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" --host "unix://$folder/sock" --bridge=none \
	--iptables=false --ip6tables=false --ip-forward=false --cgroup-parent "/docker-client-$$" >"$folder/log" 2>&1 &
daemon=$!
trap 'kill "$daemon"; wait "$daemon" || true; find /sys/fs/cgroup -depth -type d -name "docker-client-$$" -exec rmdir {} +' EXIT
timeout 30 grep -q -m1 "API listen on" < <(exec tail -n +1 -f "$folder/log" --pid "$daemon") || {
	cat "$folder/log" >&2
	exit 1
}
export DOCKER_HOST="unix://$folder/sock"
bash "$script" docker "$rootfs" "$folder/work"

# Every verb of the stock `docker` client that needs no network, against whatever engine DOCKER_HOST names: docker_client.sh DOCKER ROOTFS_TAR FOLDER
# Prints a line for each check that fails and ends with 1. A check that a real dockerd fails is a wrong check.
set -uo pipefail
docker=$1 rootfs=$2 folder=$3
mkdir -p "$folder"
failed=0 checks=0
export DOCKER_CONFIG=$folder/config

d() { timeout 60 "$docker" "$@"; }
# WORDS that must stand in what the command prints; it must succeed.
ok() {
	local words=$1 said
	shift
	checks=$((checks + 1))
	if ! said=$("$@" 2>&1 </dev/null); then
		echo "FAILED ${*}: ${said}"
		failed=$((failed + 1))
	elif [[ "$said" != *"$words"* ]]; then
		echo "WRONG ${*}: wanted ${words}, got: ${said}"
		failed=$((failed + 1))
	fi
}
# CODE, a pattern, and WORDS of a command that must fail.
no() {
	local code=$1 words=$2 said status=0
	shift 2
	checks=$((checks + 1))
	said=$("$@" 2>&1 </dev/null) || status=$?
	if [[ $status != $code || "${said,,}" != *"${words,,}"* ]]; then
		echo "WRONG ${*}: wanted ${code} ${words}, got ${status}: ${said}"
		failed=$((failed + 1))
	fi
}
piped() { # INPUT COMMAND...
	local input=$1
	shift
	printf '%s' "$input" | "$@"
}
sh_d() { timeout 60 bash -o pipefail -c "$1" "$docker"; }

# Images.
ok sha256: d import --change 'CMD ["sh"]' --change 'ENV A=1' --message note "$rootfs" scenario:1
ok scenario d images
ok scenario:1 d image ls --format '{{.Repository}}:{{.Tag}}'
ok "" d tag scenario:1 scenario:2
ok "note" d history --no-trunc scenario:1
ok '"A=1"' d image inspect scenario:1
ok "linux" d inspect --format '{{.Os}}' scenario:1
ok "" d save -o "$folder/image.tar" scenario:1 scenario:2
ok "Untagged: scenario:2" d rmi scenario:2
ok "Loaded image: scenario:2" d load -i "$folder/image.tar"
no 1 "No such image" d rmi nonesuch:1
no 1 "nonesuch" d image inspect nonesuch:1
ok "" d images --filter dangling=true -q
ok scenario d images --filter reference='scenario:*'
no 1 "invalid filter" d images --filter nonsense=1

# Lives.
ok hello d run --rm --network none scenario:1 echo hello
no 7 "" d run --rm --network none scenario:1 sh -c 'exit 7'
no 127 "not found" d run --rm --network none scenario:1 nonesuch
no 126 "permission denied" d run --rm --network none scenario:1 /etc/passwd
ok in-and-out piped in-and-out "$docker" run --rm -i --network none scenario:1 cat
ok out d run --rm --network none -e A=out scenario:1 sh -c 'echo $A'
ok "" d create --name made --network none --label k=v -p 80 --expose 81 scenario:1 sleep 100000
ok Created d ps -a --filter name=made
ok k=v d ps -a --filter label=k --format '{{.Labels}}'
ok made d start made
ok Up d ps --filter name=made
ok running d inspect --format '{{.State.Status}}' made
no 1 "already in use" d create --name made --network none scenario:1 true
no 1 "No such container" d start nonesuch
no 1 "running" d rm made
ok made d pause made
no 1 "already paused" d pause made
no 1 "paused" d exec made true
ok made d unpause made
no 1 "not paused" d unpause made
ok sleep d top made
ok PID d top made -o pid,args
ok made d stats --no-stream
ok "%" d stats --no-stream --format '{{.CPUPerc}} {{.MemUsage}} {{.NetIO}} {{.BlockIO}} {{.PIDs}}' made
ok exec-out d exec made sh -c 'echo exec-out'
ok set d exec -e B=set -w /tmp made sh -c 'echo $B'
no 3 "" d exec made sh -c 'exit 3'
no "12[67]" "not found" d exec made nonesuch
ok typed piped typed "$docker" exec -i made cat
ok "" d exec -d made sh -c 'echo x >/detached'
ok "" d rename made renamed
ok "" d rename renamed made
ok made d update --memory 64m --memory-swap 64m made
ok 67108864 d inspect --format '{{.HostConfig.Memory}}' made
ok "" d port made
ok made d kill --signal CONT made
ok made d restart -t 0 made
ok made d stop -t 0 made
ok 137 d wait made
ok Exited d ps -a --filter status=exited
no 1 "is not running" d exec made true
no 1 "is not running" d kill made
no 1 "is not running" d top made
ok made d start made
ok made d kill made
ok made d rm made
no 1 "No such container" d inspect --type container made

# Output.
ok "" d run -d --name talks --network none scenario:1 sh -c 'echo err >&2; echo out; echo more'
ok 0 d wait talks
ok out d logs talks
ok out d logs --tail 3 talks
ok Z d logs -t talks
ok err sh_d '"$0" logs talks 2>&1 >/dev/null'
ok more d logs -f --since 10m talks
ok out d start -a talks
ok talks d rm talks
ok "" d run -d --name tty -t --network none scenario:1 sh -c 'echo terminal; sleep 100000'
ok terminal sh_d 'for i in $(seq 50); do "$0" logs tty | grep terminal && exit; sleep 0.1; done; exit 1'
ok tty d rm -f tty
ok attached sh_d '"$0" create -i --name att --network none scenario:1 cat >/dev/null && echo attached | "$0" start -ai att'
ok att d rm att

# Files.
ok "" d create --name files --network none scenario:1 sh -c 'cat /given/file; rm /bin/cat; echo 1 >/made; sleep 100000'
mkdir -p "$folder/given/sub"
echo given >"$folder/given/file"
ln -sf file "$folder/given/link"
ok "" d cp "$folder/given" files:/given
ok "" d cp files:/given/file "$folder/back"
ok given cat "$folder/back"
ok "" d cp files:/given/. "$folder/all"
ok given cat "$folder/all/link"
ok "" d cp files:/given/link "$folder/link"
ok "" test -h "$folder/link"
ok "" d cp -L files:/given/link "$folder/followed"
ok given cat "$folder/followed"
ok "" sh_d 'tar -C '"$folder"' -cf - back | "$0" cp - files:/given/sub'
ok back sh_d '"$0" cp files:/given/sub - | tar -t'
ok bin/sh sh_d '"$0" cp files:/ - | tar -t 2>/dev/null | grep bin/sh'
no 1 "/nonesuch" d cp files:/nonesuch "$folder/x"
no 1 "" d cp "$folder/back" files:/nonesuch/x/y
no 1 "" d cp "$folder/given" files:/given/file
ok files d start files
ok given sh_d 'for i in $(seq 50); do "$0" exec files ls /made >/dev/null 2>&1 && break; sleep 0.1; done; "$0" logs files'
ok "" d cp "$folder/back" files:/running
ok given d exec files sed p /running
ok "D /bin/cat" d diff files
ok "A /made" d diff files
ok made sh_d '"$0" export files | tar -t | grep "^made$"'
ok "" d export -o "$folder/export.tar" files
ok sha256: d commit -a me -m why -c 'CMD ["ls","/made"]' files committed:1
ok running d inspect --format '{{.State.Status}}' files
ok /made d run --rm --network none committed:1
ok "me why" d inspect --format '{{.Author}} {{.Comment}}' committed:1
no 1 "" d commit -c 'RUN true' files
no 1 conflict sh_d '"$0" rmi "$("$0" images -q scenario:1)"'
ok files d rm -f files
ok "" d rmi committed:1

# Volumes.
ok vol d volume create --label a=b vol
ok vol d volume ls -q
ok "b" d volume inspect --format '{{.Labels.a}}' vol
ok "" d run --rm --network none -v vol:/v scenario:1 sh -c 'echo kept >/v/f'
ok kept d run --rm --network none -v vol:/v:ro scenario:1 cat /v/f
ok "" d create --name holds --network none -v vol:/v scenario:1 true
no 1 "in use" d volume rm vol
ok kept sh_d '"$0" cp holds:/v/f - | tar -xO'
ok holds d rm holds
ok vol d volume rm vol
no 1 "no such volume" d volume inspect vol
ok "Total reclaimed space" d volume prune -f

# Restart policies, health, limits.
ok "" d run -d --name sick --network none --health-cmd 'exit 1' --health-interval 200ms --health-retries 1 scenario:1 sleep 100000
ok unhealthy sh_d 'for i in $(seq 100); do "$0" inspect -f "{{.State.Health.Status}}" sick | grep unhealthy && exit; sleep 0.1; done; exit 1'
ok sick d ps --filter health=unhealthy --format '{{.Names}}'
ok sick d rm -f sick
ok "" d run -d --name again --network none --restart on-failure:2 scenario:1 false
ok 2 sh_d 'for i in $(seq 100); do n=$("$0" inspect -f "{{.RestartCount}}{{.State.Running}}{{.State.Restarting}}" again); [[ $n == 2falsefalse ]] && echo "$n" && exit; sleep 0.2; done; echo "$n"; exit 1'
ok again d rm again

# The engine.
ok "Server" d version
ok "Storage Driver" d info
ok 1. d version --format '{{.Server.APIVersion}}'
ok Images d system df
ok scenario d system df -v
ok "" d events --since 10m --until 0s --filter type=container --filter event=die
ok "exitCode=7" d events --since 10m --until 0s --filter event=die
ok "image" d events --since 10m --until 0s --filter type=image --filter event=tag --format '{{.Type}}'
no 1 "swarm" d node ls
no 1 "swarm" d service ls
ok "" d plugin ls
ok "Total reclaimed space" d container prune -f
ok "Total reclaimed space" d image prune -f
ok "Total reclaimed space" d system prune -f
no 1 "" d login --username x --password y 127.0.0.1:1
ok "" d rmi -f scenario:1 scenario:2
ok "" d ps -aq
echo "$checks checks, $failed failed"
((failed == 0))

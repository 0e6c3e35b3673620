# Sourced by integration/powercut and integration/device/run: machines of QEMU from Debian's packages, which are only unpacked, since an installed kernel
# would be this machine's next one. Owns the fetching of kernels and the making of a guest's tree; knows nothing of what a guest does.

# What is fetched and made for good lies here; a second run needs no network.
machines=${CARGO_TARGET_DIR:-target}/machines

# Downloads the named packages into a new folder and says its path. The lists of a fresh machine are empty, those of an old one name what is gone.
download() {
	local into=$machines/download
	rm -rf "$into" && mkdir -p "$into"
	(cd "$into" && apt-get download -qq -o APT::Sandbox::User=root "$@") || {
		apt-get update -qq && (cd "$into" && apt-get download -qq -o APT::Sandbox::User=root "$@")
	}
}

# The kernel of a flavour (`cloud-amd64` for virtual machines, `amd64` with the drivers of real ones, `cloud-arm64`) with its table of modules; sets
# `kernel` and `kernel_version`.
need_kernel() {
	local flavour=$1 architecture=${1##*-} package
	kernel=$machines/kernel-$flavour
	if [[ ! -e $kernel/boot ]]; then
		need_architecture "$architecture"
		apt-cache depends "linux-image-$flavour:$architecture" >/dev/null 2>&1 || apt-get update -qq
		package=$(apt-cache depends "linux-image-$flavour:$architecture" | awk '/Depends: linux-image/ { print $2; exit }')
		download "$package"
		rm -rf "$kernel.new"
		dpkg-deb -x "$machines"/download/linux-image-*.deb "$kernel.new"
		rm -rf "$machines/download"
		/sbin/depmod -b "$kernel.new" "$(ls "$kernel.new/lib/modules")"
		mv "$kernel.new" "$kernel"
	fi
	kernel_version=$(ls "$kernel/lib/modules")
}

# apt knows the packages of an architecture that is not this machine's own.
need_architecture() {
	[[ $1 == "$(dpkg --print-architecture)" ]] || dpkg --print-foreign-architectures | grep -qx "$1" || {
		dpkg --add-architecture "$1"
		apt-get update -qq
	}
}

# A static busybox of an architecture; sets `busybox`.
need_busybox() {
	busybox=/bin/busybox
	[[ $1 != "$(dpkg --print-architecture)" ]] || return 0
	local unpacked=$machines/busybox-$1
	if [[ ! -e $unpacked/bin ]]; then
		need_architecture "$1"
		download "busybox-static:$1"
		dpkg-deb -x "$machines"/download/busybox-static_*.deb "$unpacked.new"
		rm -rf "$machines/download"
		mv "$unpacked.new" "$unpacked"
	fi
	busybox=$unpacked/bin/busybox
}

# Begins a tree with the folders of every machine, and busybox under all its names.
tree_begin() {
	local tree=$1 applet
	rm -rf "$tree" && mkdir -p "$tree"/{bin,sbin,etc,proc,sys,dev,run,tmp,lib/modules,var/lib/kakoi,root,mnt}
	cp "$busybox" "$tree/bin/busybox"
	for applet in $(/bin/busybox --list); do
		[[ $applet == busybox ]] || ln -s busybox "$tree/bin/$applet"
	done
	# Where the kernel looks for it.
	ln -s ../bin/busybox "$tree/sbin/modprobe"
	printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$tree/etc/passwd"
	printf 'root:x:0:\nnogroup:x:65534:\n' >"$tree/etc/group"
	cp integration/device/mounts "$tree/etc/mounts"
}

# What makes a tree a device's: its first process, and a configuration.
tree_device() {
	local tree=$1
	mkdir -p "$tree/data" "$tree/etc/kakoi"
	cp integration/device/init-device "$tree/sbin/init"
	chmod 755 "$tree/sbin/init"
	printf 'version: 1\ndefault: audit\n' >"$tree/etc/kakoi/trust.yaml"
}

# A docker archive of busybox, `app:1`, of one layer.
app_image() {
	local archive=$1 architecture=$2 at=$1.parts applet digest
	rm -rf "$at" && mkdir -p "$at/root"/{bin,dev,etc,proc,sys,tmp}
	cp "$busybox" "$at/root/bin/busybox"
	for applet in sh echo cat sleep true false id uname wc dd wget httpd grep test; do ln -s busybox "$at/root/bin/$applet"; done
	printf 'root:x:0:0:root:/:/bin/sh\n' >"$at/root/etc/passwd"
	local options=(--sort=name --owner=0 --group=0 --numeric-owner --mtime=@1700000000)
	tar "${options[@]}" -C "$at/root" -cf "$at/layer.tar" .
	digest=$(sha256sum "$at/layer.tar" | cut -d' ' -f1)
	printf '{"architecture":"%s","os":"linux","config":{"Cmd":["sh"],"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
		"$architecture" "$digest" >"$at/config.json"
	echo '[{"Config":"config.json","RepoTags":["app:1"],"Layers":["layer.tar"]}]' >"$at/manifest.json"
	tar "${options[@]}" -C "$at" -cf "$archive" config.json manifest.json layer.tar
	rm -rf "$at"
}

# Copies programs into the tree, without what only a debugger reads.
tree_programs() {
	local tree=$1 program strip=strip
	shift
	[[ $(file -b "$1") != *aarch64* ]] || strip=aarch64-linux-gnu-strip
	for program; do
		"$strip" -o "$tree/bin/$(basename "$program")" "$program"
		chmod 755 "$tree/bin/$(basename "$program")"
	done
}

# Copies programs of this machine into the tree, each with the libraries that it loads.
tree_host_programs() {
	local tree=$1 program library
	shift
	for program; do
		program=$(command -v "$program")
		rm -f "$tree/bin/$(basename "$program")"
		cp -L "$program" "$tree/bin/"
		ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
			mkdir -p "$tree$(dirname "$library")" && cp -L "$library" "$tree$library"
		done
	done
}

# Copies modules of the kernel into the tree, with what they need and the table that modprobe reads.
tree_modules() {
	local tree=$1 module path
	shift
	for module; do
		/sbin/modprobe -d "$kernel" -S "$kernel_version" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
	done | sort -u | while read -r path; do
		path=lib/modules/${path#*/lib/modules/}
		mkdir -p "$tree/$(dirname "$path")"
		cp "$kernel/$path" "$tree/$path"
	done
	cp "$kernel/lib/modules/$kernel_version"/modules.{builtin,order} "$tree/lib/modules/$kernel_version/"
	: >"$tree/lib/modules/$kernel_version/modules.builtin.modinfo"
	/sbin/depmod -b "$tree" "$kernel_version"
}

# What containers in networks need of a kernel that has it as modules.
container_modules=(overlay veth bridge br_netfilter nf_tables nft_ct nft_nat nft_masq nft_chain_nat nft_limit nft_reject nft_reject_inet nft_redir
	nft_fib nft_fib_inet nft_meta_bridge nft_log nf_log_syslog nf_conntrack nf_conntrack_bridge loop squashfs quota_v2)

# An initramfs of the tree.
tree_pack() {
	(cd "$1" && find . | busybox cpio -o -H newc 2>/dev/null) | gzip -1 >"$2"
}

# A disk of `mebibytes` with the tree in an ext4.
tree_disk() {
	rm -f "$2" && truncate -s "$3M" "$2"
	mke2fs -q -F -t ext4 -d "$1" "$2" "$3M"
}
